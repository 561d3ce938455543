# Copyright 2026 The hf_swin authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
# Shapes: B batch, H W grid of tokens, C channels.
"""A row of Swin blocks, then patch merging."""

import torch
from torch import nn
from torch.nn import functional as F

from .modeling_blocks import SwinBlock, SwinV2Block


def gather_neighbours(x_BHWC: torch.Tensor) -> torch.Tensor:
    """Returns each 2x2 block as one token (B, ⌈H/2⌉, ⌈W/2⌉, 4C): its left column from the top, then its right one."""
    _, height, width, _ = x_BHWC.shape
    if height % 2 or width % 2:
        x_BHWC = F.pad(x_BHWC, (0, 0, 0, width % 2, 0, height % 2))
    return torch.cat([x_BHWC[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)


class PatchMerging(nn.Module):
    """Halves the grid and doubles the channels, norm first: Swin Transformer (2021), section 3.1."""

    def __init__(self, config, spec):
        super().__init__()
        self.norm = nn.LayerNorm(4 * spec.hidden_size)
        self.reduction = nn.Linear(4 * spec.hidden_size, 2 * spec.hidden_size, bias=False)

    def forward(self, x_BHWC: torch.Tensor) -> torch.Tensor:
        return self.reduction(self.norm(gather_neighbours(x_BHWC)))


class PatchMergingV2(nn.Module):
    """Halves the grid and doubles the channels, norm last, as all of Swin Transformer V2 (2022)."""

    def __init__(self, config, spec):
        super().__init__()
        self.reduction = nn.Linear(4 * spec.hidden_size, 2 * spec.hidden_size, bias=False)
        self.norm = nn.LayerNorm(2 * spec.hidden_size)

    def forward(self, x_BHWC: torch.Tensor) -> torch.Tensor:
        return self.norm(self.reduction(gather_neighbours(x_BHWC)))


class SwinStage(nn.Module):
    """Returns what the next stage reads, merged unless this is the last, and the map before; both (B, H, W, C)."""

    block_class = SwinBlock
    merging_class = PatchMerging

    def __init__(self, config, spec):
        super().__init__()
        self.blocks = nn.ModuleList([self.block_class(config, block) for block in spec.blocks])
        self.merging = self.merging_class(config, spec) if spec.merges else nn.Identity()

    def forward(self, x_BHWC: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.blocks:
            x_BHWC = block(x_BHWC, **kwargs)
        return self.merging(x_BHWC), x_BHWC


class SwinV2Stage(SwinStage):
    """A stage of Swin v2: its blocks and its merging."""

    block_class = SwinV2Block
    merging_class = PatchMergingV2
