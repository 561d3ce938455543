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
"""Linear layers on a CPU as products with packed weights: in the order in which the processor reads them.

What surrounds a layer is part of its product: the norm before it, bias and activation, and the residual after it.
"""

from typing import Protocol

import torch
from torch.nn import functional as F

from . import kernels


class Products(Protocol):
    """A maker of such products."""

    # The activations, by the config's names, that are worth being a part of the product.
    activations: dict

    def fit(self, dtype: torch.dtype) -> bool:
        """Returns whether this processor has products of this type."""

    def pack(self, weight: torch.Tensor, bias: torch.Tensor, epsilon: float | None = None) -> tuple:
        """Returns a weight (out, in) and a bias (out) as `multiply` wants them.

        With an epsilon tokens are normalised first, to a mean of 0 and a variance of 1.
        """

    def multiply(
        self, x: torch.Tensor, packed: tuple, activation: str | None = None, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns residual + activation(norm(x) Wᵀ + bias) for tokens (..., in), as (..., out)."""


class KernelProducts:
    """By the kernel of this package (linear.h)."""

    activations = {None: 0, "gelu": 1, "gelu_pytorch_tanh": 2, "relu": 3}

    def fit(self, dtype: torch.dtype) -> bool:
        tiles = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()  # which oneDNN knows to use
        wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")  # elsewhere it was never measured
        return dtype in kernels.DTYPES and wide and not tiles and kernels.compiled()

    def pack(self, weight: torch.Tensor, bias: torch.Tensor, epsilon: float | None = None) -> tuple:
        columns, inner = weight.shape
        width, together = kernels.library().linear_panel(columns), self.together(weight.dtype)
        filled = F.pad(weight, (0, -inner % together, 0, -columns % width))
        panels = filled.unflatten(0, (-1, width)).unflatten(2, (-1, together)).transpose(1, 2).contiguous()
        bias = F.pad(bias.float(), (0, -columns % width))
        epsilon = None if epsilon is None else torch.tensor(epsilon)
        return panels if together > 1 else panels.float(), bias, epsilon, (weight.dtype, inner, columns)

    def together(self, dtype: torch.dtype) -> int:
        """Returns how many neighbours of a type are multiplied at once."""
        return kernels.integer("linear_neighbours") if dtype == torch.bfloat16 else 1

    def multiply(
        self, x: torch.Tensor, packed: tuple, activation: str | None = None, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        x, (*operands, (dtype, inner, columns)) = x.contiguous(), packed
        *tokens, given = x.shape
        if (x.dtype, given) != (dtype, inner):  # the kernel would read on beyond the one or the other
            raise ValueError(f"A layer that takes {inner} numbers of {dtype} was given {given} of {x.dtype}.")
        y = x.new_empty(*tokens, columns)
        sizes = [y.numel() // columns, inner, columns, self.activations[activation], torch.get_num_threads()]
        residual = residual if residual is None else residual.contiguous()
        kernels.prepared("linear", x.dtype, sizes)(x, *operands, residual, y)
        return y


class OneDNNProducts:
    """By oneDNN, through PyTorch."""

    @property
    def activations(self) -> dict[str | None, tuple[str, str]]:
        # With vectors of 8 numbers its GELU, as part of a product, takes some four times as long as one by itself.
        wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
        fused = {"gelu": ("gelu", "none"), "gelu_pytorch_tanh": ("gelu", "tanh"), "relu": ("relu", "")}
        return {None: ("none", ""), **(fused if wide else {})}

    def fit(self, dtype: torch.dtype) -> bool:
        if not torch.backends.mkldnn.is_available():
            return False
        return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def pack(self, weight: torch.Tensor, bias: torch.Tensor, epsilon: float | None = None) -> tuple:
        return torch.ops.mkldnn._reorder_linear_weight(weight), bias.to(weight.dtype), epsilon

    def multiply(
        self, x: torch.Tensor, packed: tuple, activation: str | None = None, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        (weight, bias, epsilon), (name, form) = packed, self.activations[activation]
        x = x if epsilon is None else F.layer_norm(x, x.shape[-1:], eps=epsilon)
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], form)
        return y if residual is None else residual + y


KERNEL, ONEDNN = KernelProducts(), OneDNNProducts()


def products(dtype: torch.dtype) -> Products | None:
    """Returns the best maker of products of a type on this processor, or None."""
    return next((maker for maker in (KERNEL, ONEDNN) if maker.fit(dtype)), None)
