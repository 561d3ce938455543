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
"""Faster inference, and leaner training, with equal answers: `hf_swin.optimize(model)`.

Parameters keep their names, and what is made from them (weights in the processor's own order, a bias for each pair of
tokens) is no part of the model's state: an optimised model is saved as any other.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_utils import PreTrainedModel

from . import window_kernel
from .errors import UserError
from .modeling_attention import SelfAttention, WindowAttention
from .modeling_blocks import MLP, SwinBlock, SwinV2Block
from .modeling_windows import WindowLayout
from .packed_products import products


# Tokens times channels that go through a block together: what lies between its layers then stays in the cache.
PIECE = 1_200_000


class Derived:
    """A value made from tensors when it is first wanted, and again when one of them has changed since.

    A change through `.data` cannot be seen: PyTorch does not count it.
    """

    def __init__(self, make: Callable[..., Any]):
        self.make = make
        self.sources, self.versions, self.values = [], None, {}

    def __call__(self, tensors: list[torch.Tensor], *key: Any) -> Any:
        # A tensor made in inference mode counts no changes, so what is made from it is never taken for current.
        versions = [(tensor.data_ptr(), object() if tensor.is_inference() else tensor._version) for tensor in tensors]
        if versions != self.versions:
            # The memory is held, so that no other tensor can come to lie at the same place.
            self.sources, self.versions, self.values = [tensor.untyped_storage() for tensor in tensors], versions, {}
        if key not in self.values:
            # Outside inference mode, so that whoever wants a gradient later may use what is kept.
            with torch.inference_mode(False), torch.no_grad():
                self.values[key] = self.make(*key)
        return self.values[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sources": [], "versions": None, "values": {}}


class PackedProduct:
    """Linear layers on the same tokens as one product of packed weights, followed by an activation of a config."""

    def __init__(self, activation: str | None = None):
        self.activation = activation
        self.packed = Derived(self.pack)

    def fits(self, *layers: nn.Module) -> bool:
        """Returns whether these are ordinary linear layers, of a type for which there is such a product here."""
        maker = _plain(*layers) and products(layers[0].weight.dtype)
        return bool(maker) and self.activation in maker.activations

    def pack(self, *layers: nn.Linear) -> tuple:
        """Returns the weights of all layers, and their biases, zero for a layer without."""
        weight = torch.cat([layer.weight for layer in layers])
        biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
        return products(weight.dtype).pack(weight, torch.cat(biases))

    def __call__(self, x: torch.Tensor, *layers: nn.Linear) -> torch.Tensor:
        parameters = [part for layer in layers for part in (layer.weight, layer.bias) if part is not None]
        return products(x.dtype).multiply(x, self.packed(parameters, *layers), self.activation)


class FastWay:
    """A method of a module that has a fast way for inference, and the ordinary one for all else."""

    method = "forward"

    def __init__(self, module: nn.Module):
        self.module, self.ordinary = module, getattr(module, self.method)
        setattr(module, self.method, self)

    def fits(self) -> bool:
        """Returns whether the fast way is one for the module as it is now."""
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        plainly = not (self.module.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return (self.fast if plainly and self.fits() else self.ordinary)(*args, **kwargs)


class FastLinear(FastWay):
    """A linear layer with packed weights."""

    def __init__(self, module: nn.Module, activation: str | None = None):
        super().__init__(module)
        self.product = PackedProduct(activation)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The layers as they are now: they may have been given adapters, or another type, since."""
        return (self.module,)

    def fits(self) -> bool:
        return self.product.fits(*self.layers)

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x, *self.layers)


class FastProjections(FastLinear):
    """Queries, keys and values as one product."""

    method = "project"

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return self.module.q_proj, self.module.k_proj, self.module.v_proj

    def fast(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().fast(x).chunk(3, dim=-1)


class FastMLP(FastLinear):
    """An MLP whose activation is part of its first product."""

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (self.module.fc1,)

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.fc2(super().fast(x))


class FastBias(FastWay):
    """A bias for each pair of tokens, kept from image to image."""

    method = "position_bias"

    def __init__(self, attention: WindowAttention):
        super().__init__(attention)
        self.bias = Derived(self.ordinary)

    def fast(self, window: tuple[int, int]) -> torch.Tensor:
        parameters = [part for name, part in self.module.named_parameters() if "_proj." not in name]
        return self.bias(parameters, window)


class LeanMLP(FastWay):
    """An MLP that makes its activation again in the backward pass, rather than keep so wide a tensor."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.module.training and torch.is_grad_enabled()):
            return self.ordinary(x)
        # Making it again stops before fc2, which has all that it needs then.
        return self.module.dropout(checkpoint(self.rest, self.module.fc1(x), use_reentrant=False))

    def rest(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.module.fc2(self.module.activation(hidden))


def strips(layout: WindowLayout, rows: int) -> Iterator[tuple[list[slice], WindowLayout]]:
    """Yields parts of a grid that never meet within a block, as rows of the grid, and how each is cut into windows.

    A part has about `rows` rows, and whole windows. The last one of a shifted grid has the grid's first rows, too, for
    the roll brings them to its end.
    """
    (height, width), (side, _), (shift, shift_across) = layout.grid, layout.window, layout.shift
    step = max(rows // side, 1) * side
    for top in range(shift, height + shift, step):
        bottom = min(top + step, height + shift)
        beyond = max(bottom - height, 0)
        parts = [slice(0, beyond), slice(top, height)] if beyond else [slice(top, bottom)]
        yield parts, WindowLayout((bottom - top, width), layout.window, (beyond, shift_across))


class Piecewise(FastWay):
    """A Swin block over (B, H, W, C), a few images or some rows of windows at a time."""

    def fast(self, x_BHWC: torch.Tensor, **kwargs) -> torch.Tensor:
        batch, height, width, channels = x_BHWC.shape
        layout, images = self.module.attention.layout((height, width)), PIECE // (height * width * channels)
        uneven = layout.padded != layout.grid  # padding would have to be told apart in every strip
        if images >= batch or uneven or kwargs.get("output_attentions"):
            return self.ordinary(x_BHWC, **kwargs)
        result = torch.empty_like(x_BHWC)
        for part, answer in zip(x_BHWC.split(max(images, 1)), result.split(max(images, 1)), strict=True):
            if images:
                answer.copy_(self.ordinary(part, **kwargs))
            else:
                self.fill(answer, part, layout, **kwargs)
        return result

    def fill(self, result: torch.Tensor, x_BHWC: torch.Tensor, layout: WindowLayout, **kwargs) -> None:
        """Writes the block's answer for one image into `result`, strip by strip."""
        _, _, width, channels = x_BHWC.shape
        for parts, cut in strips(layout, PIECE // (width * channels)):
            answer = self.ordinary(torch.cat([x_BHWC[:, rows] for rows in parts], dim=1), layout=cut, **kwargs)
            heights = [rows.stop - rows.start for rows in parts]
            for rows, rows_answer in zip(parts, answer.split(heights, 1), strict=True):
                result[:, rows] = rows_answer


def optimize(
    model: PreTrainedModel,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    int8: bool = False,
    training: bool = False,
) -> PreTrainedModel:
    """Returns the model itself with a faster way to the same answers, in evaluation mode or ready to be trained.

    For inference, that way is taken under `torch.inference_mode()` or `torch.no_grad()`; with gradients all is as
    before. On a CPU the layers take packed weights, Swin's attention a kernel of its own, and Swin's blocks a few
    images, or rows of windows, at a time. `dtype` is the type the model is moved to first. `compile` leaves all but
    that kernel to torch.compile: a minute at the first call, and less time at batches of one image. `int8` quantises
    the linear layers (torchao, dynamic activations), for answers that are no longer equal, and alone changes the state.

    For training, the kernel has gradients, and what follows the first layer of an MLP is made again in the backward
    pass, which saves a sixth of the memory. Raises UserError for a model of another package, for int8 without torchao
    and for options that do not go together.
    """
    if not any(isinstance(module, SelfAttention) for module in model.modules()):
        raise UserError(f"{type(model).__name__} is no model of hf_swin: open it by the classes of this package.")
    if training and (compile or int8):
        raise UserError("training goes with neither compile nor int8: leave them out, or call torch.compile yourself.")
    _restore(model)
    model = model.train(training).to(dtype=dtype or model.dtype)
    on_cpu = model.device.type == "cpu"
    if on_cpu and any(isinstance(module, WindowAttention) for module in model.modules()):
        model.set_attn_implementation(window_kernel.NAME)
    if int8:
        _quantize(model)
    if training:
        for mlp in [module for module in model.modules() if isinstance(module, MLP)]:
            LeanMLP(mlp)
    elif compile:
        model.compile(options={"freezing": True} if on_cpu else None)
    elif on_cpu:
        _work_in_pieces(model)
        if not int8:
            _pack(model)
    return model


def _restore(model: PreTrainedModel) -> None:
    """Takes away what an earlier call has put in the place of methods."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if isinstance(value, FastWay)]:
            delattr(module, name)


def _plain(*layers: nn.Module) -> bool:
    """Returns whether these are ordinary linear layers; adapters and quantised ones do more than a product."""
    return all(type(layer) is nn.Linear for layer in layers)


def _work_in_pieces(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, WindowAttention):
            FastBias(module)
        elif isinstance(module, SwinBlock | SwinV2Block):
            Piecewise(module)


def _pack(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, SelfAttention):
            FastProjections(module)
        elif isinstance(module, MLP):
            FastMLP(module, model.config.hidden_act)
        elif _plain(module):
            FastLinear(module)


def _quantize(model: PreTrainedModel) -> None:
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise UserError("int8 needs torchao: pip install torchao.") from error
    # The network of Swin v2's bias is small, and the bias of a pair far from zero: it stays as it is.
    quantize_(
        model,
        Int8DynamicActivationInt8WeightConfig(),
        filter_fn=lambda module, name: _plain(module) and "continuous_position_bias" not in name,
    )
