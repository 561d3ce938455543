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
"""One residual unit: an attention branch and an MLP branch, normalised before (ViT, Swin) or after (Swin v2)."""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .modeling_attention import CosineWindowAttention, SelfAttention, WindowAttention


class MLP(nn.Module):
    """Two linear layers with an activation between: An Image is Worth 16x16 Words (2021), section 3.1."""

    def __init__(self, config, spec):
        super().__init__()
        self.fc1 = nn.Linear(spec.hidden_size, spec.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(spec.intermediate_size, spec.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.fc2(self.activation(self.fc1(x))))


class GatedMLP(nn.Module):
    """SwiGLU, the first half of fc1 gating the second: GLU Variants Improve Transformer (2020), as in DINOv2 giant."""

    def __init__(self, config, spec):
        super().__init__()
        self.fc1 = nn.Linear(spec.hidden_size, 2 * spec.intermediate_size)
        self.fc2 = nn.Linear(spec.intermediate_size, spec.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.dropout(self.fc2(nn.functional.silu(gate) * value))


class LayerScale(nn.Module):
    """A learned factor for each channel: Going deeper with Image Transformers (2021), section 2."""

    def __init__(self, spec):
        super().__init__()
        self.initial_value = spec.layerscale_value
        self.weight = nn.Parameter(torch.empty(spec.hidden_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class DropPath(nn.Module):
    """Drops a whole branch for some images of a batch in training: Deep Networks with Stochastic Depth (2016)."""

    def __init__(self, spec):
        super().__init__()
        self.rate = spec.drop_path_rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keeps = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (keeps / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class BranchLayerNorm(nn.LayerNorm):
    """A LayerNorm at the end of a branch; it starts at zero, so that the block begins as the identity."""


class Block(GradientCheckpointingLayer):
    """The parts of a residual unit; the subclasses say in which order they act."""

    attention_class = SelfAttention
    norm_class = nn.LayerNorm

    def __init__(self, config, spec):
        super().__init__()
        scaled = spec.layerscale_value is not None
        self.attention_norm = self.norm_class(spec.hidden_size, eps=config.layer_norm_eps)
        self.attention = self.attention_class(config, spec)
        self.attention_scale = LayerScale(spec) if scaled else nn.Identity()
        self.mlp_norm = self.norm_class(spec.hidden_size, eps=config.layer_norm_eps)
        self.mlp = GatedMLP(config, spec) if spec.gated_mlp else MLP(config, spec)
        self.mlp_scale = LayerScale(spec) if scaled else nn.Identity()
        self.drop_path = DropPath(spec)


class PreNormBlock(Block):
    """ViT's block over (B, T, C): the norm comes before each branch (2021, eq. 2 and 3)."""

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        x = x + self.drop_path(self.attention_scale(self.attention(self.attention_norm(x), **kwargs)[0]))
        x = x + self.drop_path(self.mlp_scale(self.mlp(self.mlp_norm(x))))
        return x


class SwinBlock(PreNormBlock):
    """Swin's block over (B, H, W, C), in plain or shifted windows (2021, eq. 3)."""

    attention_class = WindowAttention


class SwinV2Block(Block):
    """Swin v2's block over (B, H, W, C): the norm comes after each branch and starts at zero (2022, section 3.2)."""

    attention_class = CosineWindowAttention
    norm_class = BranchLayerNorm

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        x = x + self.drop_path(self.attention_norm(self.attention(x, **kwargs)[0]))
        x = x + self.drop_path(self.mlp_norm(self.mlp(x)))
        return x
