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
"""Other ways of Swin's blocks to the same answers: a block as one call of a kernel, a few images or rows at a time."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from .faster_ways import Derived, FastWay, packed_layers, untouched, usual
from .kernels import chained, prepared
from .modeling_attention import WindowAttention
from .modeling_blocks import Block, PreNormBlock
from .modeling_stages import PatchMerging, PatchMergingV2, SwinStage
from .modeling_swin import HfSwinPreTrainedModel
from .modeling_windows import WindowLayout
from .packed_products import KERNEL, products
from .window_kernel import WINDOW_KERNEL, by_key, geometry, is_cosine, scale_of_heads


# Tokens times channels that go through a block together: what lies between its layers then stays in the cache.
PIECE = 600_000


class Tokens(NamedTuple):
    """What is known of tokens (B, H, W, C) before they are made."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def suits(x: Tokens | torch.Tensor, *layers: nn.Linear) -> bool:
    """Returns whether the kernel is the best maker of products for tokens, and layers have weights of their type."""
    alike = all(type(layer) is nn.Linear and layer._parameters["weight"].dtype == x.dtype for layer in layers)
    return alike and x.device.type == "cpu" and products(x.dtype) is KERNEL


def parameters_of(*modules: nn.Module) -> list[torch.Tensor]:
    """Returns the tensors that modules without parts depend on."""
    return [part for module in modules for part in module._parameters.values() if part is not None]


def parameters_of_bias(attention: WindowAttention) -> list[torch.Tensor]:
    """Returns what the bias of each pair of tokens, and the scale of Swin v2's scores, are made from."""
    network = attention.continuous_position_bias.parameters() if is_cosine(attention) else ()
    return [*parameters_of(attention), *network]


def merged_shape(shape: torch.Size) -> torch.Size:
    """Returns the shape of tokens (B, H, W, C) after patch merging."""
    batch, height, width, channels = shape
    return torch.Size([batch, -(-height // 2), -(-width // 2), 2 * channels])


def tensors_of(norm: nn.LayerNorm) -> list[torch.Tensor]:
    """Returns gain, offset and epsilon."""
    return [norm.weight.float(), norm.bias.float(), torch.tensor(norm.eps)]


class FastBias(FastWay):
    """A bias for each pair of tokens, kept from image to image."""

    method = "position_bias"

    def __init__(self, attention: WindowAttention):
        super().__init__(attention)
        self.bias = Derived(self.ordinary)

    def fast(self, window: tuple[int, int]) -> torch.Tensor:
        return self.bias(parameters_of_bias(self.module), window)


class FastSwinBlock(FastWay):
    """A block of Swin or Swin v2 as one call of a kernel (swin_block.h)."""

    def __init__(self, module: Block, activation: str):
        super().__init__(module)
        self.activation = activation
        self.packed, self.kernel = Derived(self.pack), Derived(self.prepare)

    def layers(self) -> tuple[nn.Linear, ...]:
        # Past `__getattr__`, which takes ten times as long as the dictionary behind it.
        block = self.module._modules
        attention, mlp = block["attention"]._modules, block["mlp"]._modules
        return *(attention[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj")), mlp["fc1"], mlp["fc2"]

    def look(
        self,
        x: Tokens | torch.Tensor,
        layout: WindowLayout | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> Callable[..., None] | None:
        """Returns the kernel for such tokens, a function of how many images, tokens and answer, or None.

        The answer may be written in the place of the tokens.
        """
        block, layers = self.module._modules, self.layers()
        attention, *norms = (block[name] for name in ("attention", "attention_norm", "mlp_norm"))
        if not (self.activation in KERNEL.activations and suits(x, *layers) and usual(self.module)):
            return None
        layout = layout or attention.layout(x.shape[1:3])
        if layout.padded != layout.grid or attention.kernel(output_attentions) is not WINDOW_KERNEL:
            return None
        parameters = parameters_of(*norms, *layers) + parameters_of_bias(attention)
        return self.kernel(parameters, layout, x.shape[-1], torch.get_num_threads())

    def fast(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        kernel = self.look(x, **kwargs)
        if kernel is None:
            return self.ordinary(x, **kwargs)
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        kernel(len(x), x.contiguous(), y)
        return y

    def pack(self) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
        """Returns the layers, and the norms after them, as the kernel takes them for images of any size."""
        block, (*projections, output, first, second) = self.module, self.layers()
        norms = [block.attention_norm, block.mlp_norm]
        before, after = (norms, []) if isinstance(block, PreNormBlock) else ([None, None], norms)
        packed = [
            packed_layers(before[0], *projections),
            packed_layers(None, output),
            packed_layers(before[1], first),
            packed_layers(None, second),
        ]
        tensors = [tensor for weight, bias, epsilon, _ in packed for tensor in (weight, bias, epsilon)]
        ends = [part for norm in after for part in tensors_of(norm)]
        return tensors, ends or [None] * 6

    def prepare(self, layout: WindowLayout, channels: int, threads: int) -> Callable[..., None] | None:
        attention, layers, hidden = self.module.attention, self.layers(), self.module.mlp.fc1.out_features
        bias = attention.position_bias(layout.window)
        # The kernel reads as much memory as it is told, so that PyTorch shall complain of what does not go together.
        shapes = [(channels, channels)] * 4 + [(hidden, channels), (channels, hidden)]
        heads = len(bias) == attention.num_heads and attention.num_heads * attention.head_dim == channels
        if not heads or [tuple(layer.weight.shape) for layer in layers] != shapes:
            return None
        packed, norms = self.packed(parameters_of(self.module.attention_norm, self.module.mlp_norm, *layers))
        shape = (0, *layout.grid, channels)  # of as many images as there will be
        windows = [*layout.window, *layout.shift]
        sizes = geometry(shape, windows, attention.num_heads, 3 * channels, is_cosine(attention))
        sizes += [hidden, KERNEL.activations[self.activation]]
        scores = [by_key(bias), scale_of_heads(attention).float()]
        return prepared("swin_block", layers[0].weight.dtype, sizes, [*packed, *scores, *norms])


class FastMerging(FastWay):
    """Patch merging of Swin or Swin v2 as one call of a kernel."""

    def __init__(self, module: PatchMerging | PatchMergingV2):
        super().__init__(module)
        self.kernel = Derived(self.prepare)

    def look(self, x: Tokens | torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Returns the merging as a function of such tokens, or None."""
        norm, reduction = self.module.norm, self.module.reduction
        even = x.shape[1] % 2 == x.shape[2] % 2 == 0
        if not (even and type(norm) is nn.LayerNorm and suits(x, reduction) and untouched(self.module)):
            return None
        kernel = self.kernel(parameters_of(norm, reduction), *x.shape[1:], torch.get_num_threads())
        if kernel is None:
            return None
        shape = merged_shape(x.shape)

        def run(x: torch.Tensor) -> torch.Tensor:
            y = x.new_empty(shape)
            kernel(len(x), x.contiguous(), y)
            return y

        return run

    def fast(self, x: torch.Tensor) -> torch.Tensor:
        return (self.look(x) or self.ordinary)(x)

    def prepare(self, height: int, width: int, channels: int, threads: int) -> Callable[..., None] | None:
        norm, reduction = self.module.norm, self.module.reduction
        if tuple(reduction.weight.shape) != (2 * channels, 4 * channels):
            return None
        pre = isinstance(self.module, PatchMerging)
        packed = packed_layers(norm if pre else None, reduction)[:3]
        after = [None] * 3 if pre else tensors_of(norm)
        return prepared("patch_merging", reduction.weight.dtype, [height, width, channels, threads], [*packed, *after])


class FastStage(FastWay):
    """A stage of Swin, looked at once before the first block, a few images at a time.

    While blocks are at work their weights sweep Python out of the caches, and each look in between takes three times as
    long.
    """

    def __init__(self, stage: SwinStage, blocks: list[FastSwinBlock], merging: FastMerging | None):
        super().__init__(stage)
        self.blocks, self.merging = blocks, merging

    def fast(self, x: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        run = self.look(x, **kwargs)
        return run(x) if run else self.ordinary(x, **kwargs)

    def look(
        self, x: Tokens | torch.Tensor, **kwargs
    ) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None:
        """Returns the stage as a function of such tokens, or None if some part of it is not as usual now."""
        blocks, images = self.module.blocks, PIECE // max(math.prod(x.shape[1:]), 1)
        same = untouched(blocks) and [block.module for block in self.blocks] == list(blocks)
        kernels = [block.look(x, **kwargs) for block in self.blocks] if same and images else [None]
        if None in kernels:
            return None
        chain = chained("swin_blocks", x.dtype, kernels)
        merging = (self.merging and self.merging.look(x)) or self.module.merging

        def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = x.contiguous()
            result = torch.empty_like(x)
            for part, answer in zip(x.split(images), result.split(images), strict=True):
                chain(len(part), part, answer)
            return merging(result), result

        return run


def fast_stage(stage: SwinStage, activation: str) -> FastStage:
    """Puts the fast ways of a stage and its parts in place."""
    merging = FastMerging(stage.merging) if type(stage.merging) in (PatchMerging, PatchMergingV2) else None
    return FastStage(stage, [FastSwinBlock(block, activation) for block in stage.blocks], merging)


class FastEncoder(FastWay):
    """All stages of Swin, looked at once before the first, where nothing between them is asked for."""

    method = "encode"

    def __init__(self, model: HfSwinPreTrainedModel, stages: list[FastStage]):
        super().__init__(model)
        self.stages = stages

    def fits(self, x: torch.Tensor, **kwargs) -> bool:
        config = self.module.config
        wishes = [kwargs.get(name, getattr(config, name)) for name in ("output_hidden_states", "output_attentions")]
        return not any(wishes) and [stage.module for stage in self.stages] == list(self.module.stages)

    def fast(self, x: torch.Tensor, **kwargs) -> BaseModelOutput:
        tokens, runs = Tokens(x.shape, x.dtype, x.device), []
        for stage in self.stages:
            run = stage.look(tokens, **kwargs) if untouched(stage.module) else None
            if run is None:
                return self.ordinary(x, **kwargs)
            runs.append(run)
            tokens = tokens._replace(shape=merged_shape(tokens.shape))
        for run in runs:
            x, _ = run(x)
        return BaseModelOutput(last_hidden_state=x)


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
            return self.ordinary(x_BHWC, layout=layout, **kwargs)
        result = torch.empty_like(x_BHWC)
        for part, answer in zip(x_BHWC.split(max(images, 1)), result.split(max(images, 1)), strict=True):
            if images:
                answer.copy_(self.ordinary(part, layout=layout, **kwargs))
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
