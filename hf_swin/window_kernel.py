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
# Shapes: B batch, H W grid of tokens, C channels, A heads, T tokens of a window.
"""Attention in windows by a kernel of our own on a CPU: `attn_implementation="window_kernel"`.

The kernel (window_attention.h) cuts the windows by reading: nothing is rolled, partitioned or masked in memory, and
neither scores nor weights are kept for the backward pass.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from .kernels import DTYPES, compiled, prepared
from .modeling_windows import WindowLayout


NAME = "window_kernel"
WHOLE_VECTOR = 16  # numbers; rows of the bias are that much rounded up, whatever the machine's own vectors are


def geometry(shape: tuple[int, ...], layout: list[int], heads: int, stride: int, cosine: bool) -> list[int]:
    """Returns how the kernel is told of a grid (B, H, W, C), its windows, and how far apart its tokens lie."""
    batch, height, width, channels = shape
    return [batch, height, width, heads, channels // heads, *layout, stride, cosine, torch.get_num_threads()]


def _call(
    name: str, query: torch.Tensor, layout: list[int], heads: int, cosine: bool, tensors: list[torch.Tensor]
) -> None:
    sizes = geometry(query.shape, layout, heads, query.stride(2), cosine)
    prepared(f"window_attention_{name}", query.dtype, sizes)(*tensors)


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Returns a grid (B, H, W, C) whose tokens follow at one distance; a part of a wider grid stays a view."""
    _, height, width, _ = x.shape
    step = x.stride(2)
    regular = x.stride() == (height * width * step, width * step, step, 1)
    return x if regular else x.contiguous()


def by_key(bias: torch.Tensor) -> torch.Tensor:
    """Returns a bias (A, queries, keys) as the kernel reads it: one row for each key, of whole vectors."""
    return F.pad(bias.transpose(1, 2).float(), (0, -bias.shape[-1] % WHOLE_VECTOR)).contiguous()


def mixed_in_windows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    scale: torch.Tensor,
    layout: list[int],
    cosine: bool,
) -> torch.Tensor:
    """Returns softmax(Q Kᵀ · scale + bias) V in every window of a grid, (B, H, W, C), without a gradient.

    Queries, keys and values are (B, H, W, C) of whole windows; bias is (A, T, T); scale (A), one factor for each head;
    `layout` the height and width of window and shift; with `cosine` queries and keys are normalised first.
    """
    query, key, value = _rows(query), _rows(key), _rows(value)
    if not query.stride() == key.stride() == value.stride():
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    output = torch.empty(query.shape, dtype=query.dtype)
    tensors = [query, key, value, by_key(bias), scale.float(), output]
    _call("forward", query, layout, len(bias), cosine, tensors)
    return output


def mixed_globally(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, scaling: float
) -> torch.Tensor:
    """Returns softmax(Q Kᵀ · scaling) V of all tokens (B, T, C), as ViT has it, without a gradient: one window."""
    grids = [_rows(x[:, None]) for x in (query, key, value)]
    output = torch.empty(query.shape, dtype=query.dtype)
    tensors = [*grids, None, torch.full((heads,), scaling), output]
    _call("forward", grids[0], [1, query.shape[1], 0, 0], heads, False, tensors)
    return output


# `mixed_in_windows` as an operator, which compilers leave as it is. Each call costs Python half a millisecond, so that
# others do without.
window_attention = torch.library.custom_op("hf_swin::window_attention", mixed_in_windows, mutates_args=())


@window_attention.register_fake
def _(query, key, value, bias, scale, layout, cosine):
    return query.new_empty(query.shape)


def gradients_in_windows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor,
    scale: torch.Tensor,
    change: torch.Tensor,
    layout: list[int],
    cosine: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of query, key, value, bias and scale, given that of what `mixed_in_windows` returned."""
    query, key, value, change = query.contiguous(), key.contiguous(), value.contiguous(), change.contiguous()
    wide = by_key(bias)
    gradients = [torch.empty_like(query) for _ in range(3)]
    d_bias = torch.zeros(torch.get_num_threads(), *wide.shape)
    d_scale = torch.zeros(torch.get_num_threads(), len(scale))
    tensors = [query, key, value, wide, scale.float(), change, *gradients, d_bias, d_scale]
    _call("backward", query, layout, len(bias), cosine, tensors)
    d_bias = d_bias.sum(0)[..., : bias.shape[-1]].transpose(1, 2)
    return (
        *gradients,
        d_bias.to(bias.dtype, memory_format=torch.contiguous_format, copy=True),
        d_scale.sum(0).to(scale.dtype),
    )


window_attention_backward = torch.library.custom_op("hf_swin::window_attention_backward", mutates_args=())(
    gradients_in_windows
)


@window_attention_backward.register_fake
def _(query, key, value, bias, scale, change, layout, cosine):
    return tuple(torch.empty_like(tensor) for tensor in (query, key, value, bias, scale))


def _keep(ctx, inputs, output):
    *tensors, ctx.layout, ctx.cosine = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx, change, function=window_attention_backward):
    return *function(*ctx.saved_tensors, change, ctx.layout, ctx.cosine), None, None


window_attention.register_autograd(_gradients, setup_context=_keep)


class MixedInWindows(torch.autograd.Function):
    """`mixed_in_windows` with a gradient, outside compilers."""

    forward = staticmethod(mixed_in_windows)
    setup_context = staticmethod(_keep)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, change):
        return _gradients(ctx, change, gradients_in_windows)


def is_cosine(attention: nn.Module) -> bool:
    """Returns whether queries and keys are normalised, as in Swin v2."""
    return "logit_scale" in attention._parameters


def scale_of_heads(attention: nn.Module) -> torch.Tensor:
    """Returns the factor of each head's scores, (A)."""
    if is_cosine(attention):
        return attention.score_scale().flatten()
    return torch.full((attention.num_heads,), attention.scaling)


class WindowKernel:
    """The attention implementation `window_kernel`: sdpa wherever the kernel is not made for what is asked."""

    def __call__(self, *args, **kwargs) -> tuple[torch.Tensor, None]:
        return sdpa_attention_forward(*args, **kwargs)

    def takes(self, module: nn.Module, layout: WindowLayout, x_BHWC: torch.Tensor) -> bool:
        """Returns whether it can do this: float32 or bfloat16 on a CPU, no dropped weights, no hidden padding."""
        hidden = module.config.mask_padding and layout.padded != layout.grid
        dtypes = {x_BHWC.dtype, torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_BHWC.dtype}
        plain = not hidden and module.dropped_weights == 0.0 and dtypes <= DTYPES.keys()
        return plain and x_BHWC.device.type == "cpu" and compiled()

    def on_grid(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: WindowLayout,
    ) -> torch.Tensor:
        """Returns the mixed values (B, H, W, C) of queries, keys and values on a grid of whole windows."""
        bias_ATT, scale_A = module.position_bias(layout.window), scale_of_heads(module)
        traced = torch.compiler.is_compiling() or is_in_torch_dispatch_mode()
        function = window_attention if traced else MixedInWindows.apply if torch.is_grad_enabled() else mixed_in_windows
        return function(query, key, value, bias_ATT, scale_A, [*layout.window, *layout.shift], is_cosine(module))


WINDOW_KERNEL = WindowKernel()
AttentionInterface.register(NAME, WINDOW_KERNEL)
