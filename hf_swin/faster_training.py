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
"""Linear layers and MLPs that train in less memory and, where the kernel of this package is faster, in less time.

Gradients are those of the ordinary layers, but cannot be differentiated again.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .faster_inference import FastWay, plain
from .packed_products import KERNEL


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Returns x Wᵀ + bias; the weight is packed for this once, since the next step changes it."""
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return KERNEL.multiply(x, KERNEL.pack(weight, bias))


def _gradients(
    change: torch.Tensor, x: torch.Tensor, wanted: tuple[bool, ...]
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Returns the gradients of weight and bias of a linear layer, from that of its output, where they are wanted."""
    change, x = change.flatten(0, -2), x.flatten(0, -2)
    return change.T @ x if wanted[0] else None, change.sum(0) if wanted[1] else None


class LinearStep(torch.autograd.Function):
    """A linear layer: x Wᵀ + bias."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, change: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = _product(change, weight.T) if ctx.needs_input_grad[0] else None
        return of_x, *_gradients(change, x, ctx.needs_input_grad[1:])


class MLPStep(torch.autograd.Function):
    """Two linear layers with an activation between, which is made again rather than kept: it is four times as wide."""

    @staticmethod
    def forward(
        ctx,
        x: torch.Tensor,
        weight_1: torch.Tensor,
        bias_1: torch.Tensor | None,
        weight_2: torch.Tensor,
        bias_2: torch.Tensor | None,
        activation: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        hidden = _product(x, weight_1, bias_1)
        ctx.save_for_backward(x, hidden, weight_1, weight_2)
        ctx.activation = activation
        return _product(activation(hidden), weight_2, bias_2)

    @staticmethod
    @once_differentiable
    def backward(ctx, change: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, hidden, weight_1, weight_2 = ctx.saved_tensors
        with torch.enable_grad():
            hidden = hidden.detach().requires_grad_(True)
            activated = ctx.activation(hidden)
        of_second = _gradients(change, activated.detach(), ctx.needs_input_grad[3:5])
        (change,) = torch.autograd.grad(activated, hidden, _product(change, weight_2.T))
        del hidden, activated
        of_first = _gradients(change, x, ctx.needs_input_grad[1:3])
        of_x = _product(change, weight_1.T) if ctx.needs_input_grad[0] else None
        return of_x, *of_first, *of_second, None


class LeanWay(FastWay):
    """A forward pass that has a way of its own in training."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        trains = self.module.training and torch.is_grad_enabled()
        return (self.fast if trains and self.fits(x) else self.ordinary)(x)

    def fits(self, x: torch.Tensor, *layers: nn.Module) -> bool:
        """Returns whether the kernel is made for these layers and tokens; a tracing compiler cannot look into it."""
        simple = plain(*layers) and not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
        dtypes = {x.dtype, *(layer.weight.dtype for layer in layers)}
        return simple and x.device.type == "cpu" and dtypes == {torch.float32} and KERNEL.fit(torch.float32)


class LeanLinear(LeanWay):
    """A linear layer."""

    def fits(self, x: torch.Tensor) -> bool:
        return super().fits(x, self.module)

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        return LinearStep.apply(x, self.module.weight, self.module.bias)


class LeanMLP(LeanWay):
    """An MLP that makes its activation again in the backward pass, by the kernel or by PyTorch's layers."""

    def fits(self, x: torch.Tensor) -> bool:
        return True

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        fc1, fc2, activation = self.module.fc1, self.module.fc2, self.module.activation
        if super().fits(x, fc1, fc2) and not list(activation.parameters()):
            return self.module.dropout(MLPStep.apply(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias, activation))
        # Making it again stops before fc2, which has all that it needs then.
        return self.module.dropout(checkpoint(self.rest, fc1(x), use_reentrant=False))

    def rest(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.module.fc2(self.module.activation(hidden))
