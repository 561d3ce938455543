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
"""Other ways of a model's modules to the same answers, faster or leaner; `optimize` puts them in the place of methods.

What is made from parameters (weights in the processor's own order, a bias for each pair of tokens) is no part of the
model's state, and is made again when they have changed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.utils.output_capturing import capture_outputs

from .modeling_attention import eager_attention_forward
from .modeling_blocks import MLP, Block, PreNormBlock
from .packed_products import KERNEL, products
from .window_kernel import mixed_globally


# The module of transformers whose hooks take hidden states and attentions out of a model.
CAPTURING = capture_outputs.__module__


# With more tokens than this the weights of a head leave the cache, and sdpa, which makes them bit by bit, is as fast.
MOST_TOKENS = 640


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


def plain(*layers: nn.Module) -> bool:
    """Returns whether these are ordinary linear layers; adapters and quantised ones do more than a product."""
    return all(type(layer) is nn.Linear for layer in layers)


def untouched(*modules: nn.Module) -> bool:
    """Returns whether modules and their parts do nothing but what their class says, or ways like these.

    They have no hooks, none of them is in training, and nobody else has put something in the place of `forward`.
    """
    for part in (part for module in modules for part in (module, *module._modules.values())):
        own = vars(part)
        hooks = own["_forward_hooks"]
        # Hooks of transformers stay once there was a wish for hidden states or attentions, and do nothing without one.
        if hooks and any(hook.__module__ != CAPTURING for hook in hooks.values()):
            return False
        if own["training"] or own["_forward_pre_hooks"]:
            return False
        if not isinstance(own.get("forward"), FastWay | None):
            return False
    return True


def usual(block: Block) -> bool:
    """Returns whether a block is untouched and has ordinary parts: those that the fast ways know."""
    parts = block._modules  # past `__getattr__`, which takes ten times as long
    ordinary = type(parts["mlp"]) is MLP
    ordinary &= type(parts["attention_scale"]) is type(parts["mlp_scale"]) is nn.Identity
    ordinary &= type(parts["attention_norm"]) is type(parts["mlp_norm"]) is block.norm_class
    return ordinary and untouched(block, parts["attention"], parts["mlp"])


def packed_layers(norm: nn.LayerNorm | None, *layers: nn.Linear) -> tuple:
    """Returns the packed weights of all layers, which take in gain and offset of a norm before them, and the biases."""
    weight = torch.cat([layer.weight.flatten(1) for layer in layers])
    biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    bias, dtype = torch.cat(biases), weight.dtype
    if norm is None:
        return products(dtype).pack(weight, bias)
    weight = weight.float()
    bias = bias.float() + weight @ norm.bias.float()
    return products(dtype).pack((weight * norm.weight.float()).to(dtype), bias, norm.eps)


class PackedProduct:
    """Linear layers on the same tokens as one product of packed weights, followed by an activation of a config."""

    def __init__(self, activation: str | None = None):
        self.activation = activation
        self.packed = Derived(packed_layers)

    def fits(self, *layers: nn.Module) -> bool:
        """Returns whether these are ordinary linear layers, of a type for which there is such a product here."""
        maker = plain(*layers) and products(layers[0].weight.dtype)
        return bool(maker) and self.activation in maker.activations

    def __call__(
        self,
        x: torch.Tensor,
        *layers: nn.Linear,
        norm: nn.LayerNorm | None = None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        modules = layers if norm is None else (norm, *layers)
        parameters = [part for module in modules for part in (module.weight, module.bias) if part is not None]
        return products(x.dtype).multiply(x, self.packed(parameters, norm, *layers), self.activation, residual)


class FastWay:
    """A method of a module that has a fast way for inference, and the ordinary one for all else, compilers among it."""

    method = "forward"

    def __init__(self, module: nn.Module):
        self.module, self.ordinary = module, getattr(module, self.method)
        setattr(module, self.method, self)

    def fits(self, *args: Any, **kwargs: Any) -> bool:
        """Returns whether the fast way is one for the module as it is now, and for what it is given."""
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        otherwise = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        plainly = not (self.module.training or otherwise)
        return (self.fast if plainly and self.fits(*args, **kwargs) else self.ordinary)(*args, **kwargs)


class FastLinear(FastWay):
    """A linear layer with packed weights."""

    def __init__(self, module: nn.Module, activation: str | None = None):
        super().__init__(module)
        self.product = PackedProduct(activation)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The layers as they are now: they may have been given adapters, or another type, since."""
        return (self.module,)

    def fits(self, *args: Any, **kwargs: Any) -> bool:
        return self.product.fits(*self.layers)

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x, *self.layers)


class FastPatches(FastWay):
    """A convolution whose patches meet but do not overlap, as a product of each patch."""

    def __init__(self, module: nn.Conv2d):
        super().__init__(module)
        self.product = PackedProduct()

    def fits(self, *args: Any, **kwargs: Any) -> bool:
        return self.module.kernel_size == self.module.stride and products(self.module.weight.dtype) is not None

    def fast(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        height, width = self.module.stride
        rows, columns = x_BCHW.shape[2] // height, x_BCHW.shape[3] // width
        whole = x_BCHW[:, :, : rows * height, : columns * width]
        patches = whole.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return self.product(patches, self.module).permute(0, 3, 1, 2)


class FastProjections(FastLinear):
    """Queries, keys and values as one product."""

    method = "project"

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return self.module.q_proj, self.module.k_proj, self.module.v_proj

    def fits(self, *args: Any, **kwargs: Any) -> bool:
        return super().fits() and untouched(*self.layers)

    def fast(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return super().fast(x).chunk(3, dim=-1)


class FastMLP(FastLinear):
    """An MLP whose activation is part of its first product."""

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (self.module.fc1,)

    def fits(self, *args: Any, **kwargs: Any) -> bool:
        return super().fits() and untouched(self.module)

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.fc2(super().fast(x))


class FastBlock(FastWay):
    """ViT's block, whose norms and residuals are part of its products."""

    def __init__(self, module: PreNormBlock, activation: str):
        super().__init__(module)
        self.projections, self.output = PackedProduct(), PackedProduct()
        self.first, self.second = PackedProduct(activation), PackedProduct()

    def fits(self, x: torch.Tensor, output_attentions: bool | None = None, **kwargs) -> bool:
        block, attention, mlp = self.module, self.module.attention, self.module.mlp
        ordinary = usual(block) and attention.kernel(output_attentions) is not eager_attention_forward
        return ordinary and self.first.fits(mlp.fc1, mlp.fc2, *self.attention_layers)

    @property
    def attention_layers(self) -> tuple[nn.Module, ...]:
        attention = self.module.attention
        return attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj

    def fast(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        block, mlp = self.module, self.module.mlp
        *projections, o_proj = self.attention_layers
        projected = self.projections(x, *projections, norm=block.attention_norm).chunk(3, dim=-1)
        x = self.output(self.mixed(*projected, **kwargs), o_proj, residual=x)
        x = self.second(self.first(x, mlp.fc1, norm=block.mlp_norm), mlp.fc2, residual=x)
        return x

    def mixed(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **kwargs) -> torch.Tensor:
        """Returns the mixed values (B, T, C), by the kernel for windows where it is faster than sdpa."""
        attention, (batch, tokens, _) = self.module.attention, query.shape
        enough = tokens <= MOST_TOKENS and batch * attention.num_heads >= torch.get_num_threads()
        by_sdpa = attention.kernel(None) is sdpa_attention_forward and kwargs.get("bias_ATT") is None
        if enough and by_sdpa and query.device.type == "cpu" and products(query.dtype) is KERNEL:
            return mixed_globally(query, key, value, attention.num_heads, attention.scaling)
        return attention.mix(query, key, value, **kwargs)[0]


def unkept(function: Callable[[torch.Tensor], torch.Tensor], norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """Returns function(x); if the norm gave x, the backward pass makes it again, rather than keep it.

    The norm keeps its own input in any case.
    """
    made = None if torch.compiler.is_compiling() else x.grad_fn
    if made is None or made.name() != "NativeLayerNormBackward0" or made._saved_weight is not norm.weight:
        return function(x)
    memory = x.data_ptr(), x.numel(), x.dtype

    def pack(kept: torch.Tensor) -> torch.Tensor | torch.Size:
        return kept.shape if (kept.data_ptr(), kept.numel(), kept.dtype) == memory else kept

    def unpack(kept: torch.Tensor | torch.Size) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        again = F.layer_norm(made._saved_input, norm.normalized_shape, made._saved_weight, made._saved_bias, norm.eps)
        return again.view(kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return function(x)


class LeanWay(FastWay):
    """A way of a module after a norm to keep less for the backward pass."""

    def __init__(self, module: nn.Module, norm: nn.LayerNorm):
        super().__init__(module)
        self.norm = norm

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (self.lean if self.module.training and torch.is_grad_enabled() else self.ordinary)(x)


class LeanLinear(LeanWay):
    """A linear layer that makes its input again."""

    def lean(self, x: torch.Tensor) -> torch.Tensor:
        return unkept(self.ordinary, self.norm, x)


class LeanMLP(LeanWay):
    """An MLP that makes its input and its activation again."""

    def lean(self, x: torch.Tensor) -> torch.Tensor:
        # Making the activation again stops before fc2, which has all that it needs then.
        hidden = unkept(self.module.fc1, self.norm, x)
        return self.module.dropout(checkpoint(self.rest, hidden, use_reentrant=False))

    def rest(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.module.fc2(self.module.activation(hidden))
