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
# Shapes: B batch, H W grid of patches, C channels, T tokens of an image (ViT: those before the patches included).
"""Pixels to tokens: patches, the tokens before them, masked patches, and positions at any image size."""

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_vit import pair
from .modeling_resizing import resize_positions
from .modeling_windows import cached


class PatchEmbeddings(nn.Module):
    """Cuts (B, channels, height, width) pixels into patches and maps each linearly: (B, H, W, C).

    An image that is no whole number of patches is padded with zeros at its end, so that no pixel is lost. Raises for
    another number of channels than the config's. An Image is Worth 16x16 Words (2021), eq. 1.
    """

    def __init__(self, config, hidden_size=None):
        super().__init__()
        self.patch_size = pair(config.patch_size)
        self.projection = nn.Conv2d(
            config.num_channels, hidden_size or config.hidden_size, self.patch_size, self.patch_size
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if pixel_values.ndim != 4:
            raise ValueError(f"pixel_values are (batch, channels, height, width), got {tuple(pixel_values.shape)}")
        _, channels, height, width = pixel_values.shape
        if channels != self.projection.in_channels:
            raise ValueError(
                f"pixel_values have {channels} channels, the model takes {self.projection.in_channels}; "
                "convert the images or set num_channels"
            )
        below, right = -height % self.patch_size[0], -width % self.patch_size[1]
        if below or right:
            pixel_values = F.pad(pixel_values, (0, right, 0, below))
        return self.projection(pixel_values.to(self.projection.weight.dtype)).permute(0, 2, 3, 1)


def replace_masked(
    x_BHWC: torch.Tensor, mask_token: torch.Tensor | None, bool_masked_pos: torch.Tensor
) -> torch.Tensor:
    """Returns the patches with those of `bool_masked_pos`, (B, H·W) or (B, H, W), replaced by the mask token."""
    if mask_token is None:
        raise ValueError("bool_masked_pos needs a mask token; use the ForMaskedImageModeling class")
    batch, height, width, _ = x_BHWC.shape
    if bool_masked_pos.numel() != batch * height * width:
        raise ValueError(
            f"bool_masked_pos {tuple(bool_masked_pos.shape)} does not fit {batch} images of {height}x{width} patches"
        )
    masked = bool_masked_pos.reshape(x_BHWC.shape[:3]).to(device=x_BHWC.device, dtype=torch.bool)
    return torch.where(masked[..., None], mask_token.to(x_BHWC.dtype), x_BHWC)


@cached
def sinusoidal_1d(positions: int, channels: int, device: torch.device) -> torch.Tensor:
    """Returns sin and cos at channels/2 frequencies, (positions, channels): Attention Is All You Need (2017), 3.5."""
    frequencies = 10000.0 ** -(torch.arange(0, channels, 2, device=device) / channels)
    angles = torch.arange(positions, device=device)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


@cached
def sinusoidal_2d(grid: tuple[int, int], channels: int, device: torch.device) -> torch.Tensor:
    """Returns sin and cos of column, then of row, (H·W, channels): MoCo v3 (2021), as in big_vision."""
    frequencies = 10000.0 ** -(torch.arange(channels // 4, device=device) / max(channels // 4 - 1, 1))
    rows = torch.arange(grid[0], device=device).repeat_interleave(grid[1])[:, None] * frequencies
    columns = torch.arange(grid[1], device=device).repeat(grid[0])[:, None] * frequencies
    return torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], dim=1)


class ViTEmbeddings(nn.Module):
    """Returns all tokens (B, T, C) of (B, channels, height, width) pixels: class, distillation, registers, patches.

    Registers stand between and have no position (Vision Transformers Need Registers, 2024); the distillation token has
    one (DeiT, 2021).
    """

    def __init__(self, config, use_mask_token=False):
        super().__init__()
        self.config = config

        def token(count):
            return nn.Parameter(torch.empty(1, int(count), config.hidden_size)) if count else None

        self.patch_embeddings = PatchEmbeddings(config)
        self.cls_token = token(config.use_class_token)
        self.distillation_token = token(config.use_distillation_token)
        self.register_tokens = token(config.num_register_tokens)
        self.mask_token = token(use_mask_token)
        learned = config.position_embedding_type == "learned"
        self.position_embeddings = token(learned and config.num_positioned_tokens + config.grid[0] * config.grid[1])
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor | None = None) -> torch.Tensor:
        patches_BHWC = self.patch_embeddings(pixel_values)
        if bool_masked_pos is not None:
            patches_BHWC = replace_masked(patches_BHWC, self.mask_token, bool_masked_pos)
        batch, height, width, _ = patches_BHWC.shape
        before = [
            token.expand(batch, -1, -1) for token in (self.cls_token, self.distillation_token) if token is not None
        ]
        x_BTC = torch.cat([*before, patches_BHWC.flatten(1, 2)], dim=1)
        x_BTC = x_BTC + self.positions((height, width), x_BTC.device).to(x_BTC.dtype)
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(batch, -1, -1)
            x_BTC = torch.cat([x_BTC[:, : len(before)], registers, x_BTC[:, len(before) :]], dim=1)
        return self.dropout(x_BTC)

    def positions(self, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
        """Returns what is added to class token, distillation token and patches, as far as there are any."""
        kind, channels = self.config.position_embedding_type, self.config.hidden_size
        before = self.config.num_positioned_tokens
        if kind == "none":
            return torch.zeros((), device=device)
        if kind == "sinusoidal_1d":
            return sinusoidal_1d(before + grid[0] * grid[1], channels, device)
        if kind == "sinusoidal_2d":  # the tokens before the patches have no place on the grid
            return F.pad(sinusoidal_2d(grid, channels, device), (0, 0, before, 0))
        table = self.position_embeddings
        patches = resize_positions(table[:, before:], self.config.grid, grid, self.config.position_resizing)
        return torch.cat([table[:, :before], patches], dim=1)


class SwinEmbeddings(nn.Module):
    """Returns the first grid (B, H, W, C) of (B, channels, height, width) pixels: Swin Transformer (2021), 3.1."""

    def __init__(self, config, use_mask_token=False):
        super().__init__()
        self.config = config
        self.patch_embeddings = PatchEmbeddings(config, config.embed_dim)
        self.norm = nn.LayerNorm(config.embed_dim)  # layer_norm_eps is that of the blocks, here and in merging
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.embed_dim)) if use_mask_token else None
        self.position_embeddings = None
        # CODEPATH: no published checkpoint; the option of the paper's ablation (table 4, "abs. pos.").
        if config.use_absolute_embeddings:
            self.position_embeddings = nn.Parameter(torch.empty(1, config.grid[0] * config.grid[1], config.embed_dim))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values: torch.Tensor, bool_masked_pos: torch.Tensor | None = None) -> torch.Tensor:
        x_BHWC = self.norm(self.patch_embeddings(pixel_values))
        if bool_masked_pos is not None:
            x_BHWC = replace_masked(x_BHWC, self.mask_token, bool_masked_pos)
        if self.position_embeddings is not None:
            grid = (x_BHWC.shape[1], x_BHWC.shape[2])
            table = resize_positions(self.position_embeddings, self.config.grid, grid, self.config.position_resizing)
            x_BHWC = x_BHWC + table.unflatten(1, grid)
        return self.dropout(x_BHWC)
