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
# Shapes: B batch, H W grid of tokens, C channels, A heads, D channels of a head, N windows of one image, T tokens that
# attend to each other: all of them (ViT) or those of a window (Swin, where B·N windows take the place of B).
"""Tokens to tokens: global attention, attention in windows (Swin), and cosine attention in windows (Swin v2)."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import maybe_autocast

from .modeling_windows import (
    WindowLayout,
    crop,
    log_offsets,
    pad,
    partition,
    relative_index,
    separated,
    unpartition,
    window_layout,
)


# The score of a pair that must not meet: exp() of it is zero, and it is a finite number in every float type.
FORBIDDEN = torch.finfo(torch.float16).min


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns softmax(Q Kᵀ · scaling + mask) V as (B, T, A, D), and the weights (B, A, T, T), softmax in float32.

    Attention Is All You Need (2017), eq. 1.
    """
    scores = query @ key.transpose(-2, -1) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed = F.dropout(weights, dropout, module.training) @ value
    return mixed.transpose(1, 2), weights


class SelfAttention(nn.Module):
    """Multi-head self-attention over (B, T, C): Attention Is All You Need (2017), section 3.2."""

    key_has_bias = True

    def __init__(self, config, spec):
        super().__init__()
        self.config = config
        self.num_heads, self.head_dim = spec.num_heads, spec.hidden_size // spec.num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(spec.hidden_size, spec.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(spec.hidden_size, spec.hidden_size, bias=config.qkv_bias and self.key_has_bias)
        self.v_proj = nn.Linear(spec.hidden_size, spec.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, x_BTC: torch.Tensor, bias_ATT: torch.Tensor | None = None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mixed_BTC, weights_BATT = self.mix(*self.project(x_BTC), bias_ATT, **kwargs)
        return self.dropout(self.o_proj(mixed_BTC)), weights_BATT

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns queries, keys and values, each as wide as the tokens (..., C)."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def mix(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias_ATT: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the mixed values of queries, keys and values, all (B, T, C), and the weights if they are wanted."""
        by_head = (
            x_BTC.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x_BTC in (query, key, value)
        )
        mixed_BTAD, weights_BATT = self.attend(*by_head, bias_ATT, **kwargs)
        return mixed_BTAD.flatten(2), weights_BATT

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias_ATT: torch.Tensor | None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns the mixed values (B, T, A, D) by the kernel the user chose; the eager one has the weights too."""
        kernel = self.kernel(output_attentions)
        bias_ATT = None if bias_ATT is None else bias_ATT.to(query.dtype)
        return kernel(self, query, key, value, bias_ATT, scaling=self.scaling, dropout=self.dropped_weights, **kwargs)

    def kernel(self, output_attentions: bool | None) -> Callable:
        """Returns the function that the user chose, or the eager one for who wants the weights."""
        wants_weights = self.config.output_attentions if output_attentions is None else output_attentions
        implementation = "eager" if wants_weights else self.config._attn_implementation
        return ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)

    @property
    def dropped_weights(self) -> float:
        """The share of attention weights that is dropped now."""
        return self.config.attention_probs_dropout_prob if self.training else 0.0


class WindowAttention(SelfAttention):
    """W-MSA and SW-MSA over (B, H, W, C) with a relative position bias: Swin Transformer (2021), section 3.2."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.spec = spec
        self.create_position_bias()

    def create_position_bias(self):
        """Makes the learned table: one number for each head and each offset within the window."""
        height, width = self.spec.window
        offsets = (2 * height - 1) * (2 * width - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, self.spec.num_heads))

    def position_bias(self, window: tuple[int, int]) -> torch.Tensor:
        """Returns the bias (A, T, T) of each pair of tokens of a window no larger than the table's."""
        index = relative_index(window, self.spec.window, self.relative_position_bias_table.device)
        return bias_of_pairs(self.relative_position_bias_table, index)

    def layout(self, grid: tuple[int, int]) -> WindowLayout:
        """Returns how this block cuts a grid (height, width) into windows."""
        return window_layout(grid, self.spec.window, self.spec.shifted, self.config.partition_rule, self.spec.home_grid)

    def forward(
        self, x_BHWC: torch.Tensor, layout: WindowLayout | None = None, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, height, width, _ = x_BHWC.shape
        layout = layout or self.layout((height, width))
        kernel = self.kernel(kwargs.get("output_attentions"))
        if hasattr(kernel, "on_grid") and kernel.takes(self, layout, x_BHWC):
            mixed_BHWC = kernel.on_grid(self, *self.project(pad(x_BHWC, layout)), layout)
            return self.dropout(self.o_proj(crop(mixed_BHWC, layout))), None
        windows_NTC = partition(x_BHWC, layout)
        mixed_NTC, weights = super().forward(windows_NTC, self.masked_bias(layout, batch, x_BHWC.device), **kwargs)
        if weights is not None:  # (B·N, A, T, T) to (B, N, A, T, T): the windows of one image stay together
            weights = weights.unflatten(0, (batch, windows_NTC.shape[0] // max(batch, 1)))
        return unpartition(mixed_NTC, layout), weights

    def masked_bias(self, layout: WindowLayout, batch: int, device: torch.device) -> torch.Tensor:
        """Returns what is added to the scores: (1, A, T, T), or (B·N, A, T, T) where the windows differ."""
        bias_ATT = self.position_bias(layout.window)
        forbidden_NATT = separated(layout, self.config.mask_padding, device)
        if forbidden_NATT is None:
            return bias_ATT[None]
        # The attention interface of transformers takes four dimensions, so the windows of each image get a copy.
        return bias_ATT.masked_fill(forbidden_NATT, FORBIDDEN).repeat(batch, 1, 1, 1)


def bias_of_pairs(table: torch.Tensor, index_TT: torch.Tensor) -> torch.Tensor:
    """Returns the rows of a table (offsets, A) that belong to each pair of tokens, as (A, T, T)."""
    return table[index_TT].permute(2, 0, 1).contiguous()


class ContinuousPositionBias(nn.Module):
    """A small MLP that makes the bias of an offset from its log-spaced coordinates: Swin Transformer V2 (2022), 3.3."""

    def __init__(self, config, spec):
        super().__init__()
        self.fc1 = nn.Linear(2, config.bias_hidden_size)
        self.fc2 = nn.Linear(config.bias_hidden_size, spec.num_heads, bias=False)

    def forward(self, offsets: torch.Tensor) -> torch.Tensor:
        return 16 * torch.sigmoid(self.fc2(F.relu(self.fc1(offsets.to(self.fc1.weight.dtype)))).float())


class CosineWindowAttention(WindowAttention):
    """Window attention by the angle between query and key, with a learned temperature: Swin Transformer V2 (2022), 3.2.

    Scores reach ±100, more than half precision resolves, and the key of a padded token is exactly zero; so scores and
    softmax are float32 whatever the rest is.
    """

    key_has_bias = False
    max_logit_scale = math.log(100)

    def create_position_bias(self):
        """Makes the bias network and the temperature of each head, as a logarithm."""
        self.continuous_position_bias = ContinuousPositionBias(self.config, self.spec)
        self.logit_scale = nn.Parameter(torch.empty(self.spec.num_heads, 1, 1))
        self.scaling = 1.0

    def position_bias(self, window: tuple[int, int]) -> torch.Tensor:
        device = self.logit_scale.device
        with maybe_autocast(device.type, enabled=False):
            table = self.continuous_position_bias(log_offsets(window, self.spec.reference_window, device))
        return bias_of_pairs(table, relative_index(window, window, device))

    def score_scale(self) -> torch.Tensor:
        """Returns the factor (A, 1, 1) of each head's cosines."""
        return self.logit_scale.float().clamp(max=self.max_logit_scale).exp()

    def attend(self, query, key, value, bias_ATT, **kwargs):
        with maybe_autocast(query.device.type, enabled=False):
            query = F.normalize(query.float(), dim=-1) * self.score_scale()
            key = F.normalize(key.float(), dim=-1)
            mixed_BTAD, weights_BATT = super().attend(query, key, value.float(), bias_ATT, **kwargs)
        return mixed_BTAD.to(value.dtype), weights_BATT
