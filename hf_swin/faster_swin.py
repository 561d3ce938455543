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

from collections.abc import Callable, Iterator

import torch
from torch import nn

from .faster_ways import Derived, FastWay, PackedProduct, packed_layers, untouched
from .kernels import prepared
from .modeling_attention import CosineWindowAttention, WindowAttention
from .modeling_blocks import MLP, Block, PreNormBlock
from .modeling_stages import PatchMerging, SwinStage, gather_neighbours
from .modeling_windows import WindowLayout
from .packed_products import KERNEL, products
from .window_kernel import WINDOW_KERNEL, by_key, geometry, is_cosine, scale_of_heads


# Tokens times channels that go through a block together: what lies between its layers then stays in the cache.
PIECE = 600_000


class FastBias(FastWay):
    """A bias for each pair of tokens, kept from image to image."""

    method = "position_bias"

    def __init__(self, attention: WindowAttention):
        super().__init__(attention)
        self.bias = Derived(self.ordinary)

    def fast(self, window: tuple[int, int]) -> torch.Tensor:
        parameters = list(self.module.parameters(recurse=False))
        if isinstance(self.module, CosineWindowAttention):
            parameters += self.module.continuous_position_bias.parameters()
        return self.bias(parameters, window)


class FastSwinBlock(FastWay):
    """A block of Swin or Swin v2 as one call of a kernel (swin_block.h)."""

    def __init__(self, module: Block, activation: str):
        super().__init__(module)
        self.activation = activation
        self.packed, self.block = Derived(self.pack), Derived(self.prepare)

    def layers(self) -> tuple[nn.Linear, ...]:
        attention, mlp = self.module.attention, self.module.mlp
        return attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.fc1, mlp.fc2

    def fits(
        self, x: torch.Tensor, layout: WindowLayout | None = None, output_attentions: bool | None = None, **kwargs
    ) -> bool:
        block, attention, mlp = self.module, self.module.attention, self.module.mlp
        ordinary = type(mlp) is MLP and self.activation in KERNEL.activations and untouched(block, attention, mlp)
        ordinary &= type(block.attention_scale) is type(block.mlp_scale) is nn.Identity
        ordinary &= type(block.attention_norm) is type(block.mlp_norm) is block.norm_class
        ordinary &= all(type(layer) is nn.Linear and layer.weight.dtype == x.dtype for layer in self.layers())
        if not (ordinary and x.device.type == "cpu" and products(x.dtype) is KERNEL):
            return False
        layout = layout or attention.layout(x.shape[1:3])
        return layout.padded == layout.grid and attention.kernel(output_attentions) is WINDOW_KERNEL

    def fast(self, x: torch.Tensor, layout: WindowLayout | None = None, **kwargs) -> torch.Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        self.kernel(x.shape, layout)(x, y)
        return y

    def kernel(self, shape: torch.Size, layout: WindowLayout | None = None) -> Callable[..., None]:
        """Returns a function of tokens of this shape, and of where the answer shall be, which may be the same place."""
        layout = layout or self.module.attention.layout(shape[1:3])
        return self.block(self.parameters(), shape, layout, torch.get_num_threads())

    def parameters(self) -> list[torch.Tensor]:
        """Returns all tensors that the block's answer depends on."""
        block, attention = self.module, self.module.attention
        modules = [block.attention_norm, block.mlp_norm, attention, *self.layers()]
        if is_cosine(attention):
            network = attention.continuous_position_bias
            modules += [network.fc1, network.fc2]
        return [part for module in modules for part in module._parameters.values() if part is not None]

    def pack(self) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
        """Returns the layers, and the norms after them, as the kernel takes them for images of any size."""
        block, (*projections, output, first, second) = self.module, self.layers()
        norms = [block.attention_norm, block.mlp_norm]
        before, after = (norms, []) if isinstance(block, PreNormBlock) else ([None, None], norms)
        packed = [
            packed_layers(*projections, norm=before[0]),
            packed_layers(output),
            packed_layers(first, norm=before[1]),
            packed_layers(second),
        ]
        tensors = [tensor for weight, bias, epsilon, _ in packed for tensor in (weight, bias, epsilon)]
        ends = [part for norm in after for part in (norm.weight.float(), norm.bias.float(), torch.tensor(norm.eps))]
        return tensors, ends or [None] * 6

    def prepare(self, shape: torch.Size, layout: WindowLayout, threads: int) -> Callable[..., None]:
        """Returns the kernel, told all but where the tokens are and where the answer shall be."""
        attention, mlp = self.module.attention, self.module.mlp
        layers, norms = self.packed(self.parameters())
        windows = [*layout.window, *layout.shift]
        sizes = geometry(shape, windows, attention.num_heads, 3 * shape[-1], is_cosine(attention))
        sizes += [mlp.fc1.out_features, KERNEL.activations[self.activation]]
        scores = [by_key(attention.position_bias(layout.window)), scale_of_heads(attention).float()]
        return prepared("swin_block", mlp.fc1.weight.dtype, sizes, [*layers, *scores, *norms])


class FastStage(FastWay):
    """A stage of Swin whose blocks follow each other without a look at anything between, a few images at a time.

    What the blocks are is looked at before the first: in between, the weights going by have swept Python out of the
    caches, and each look takes three times as long.
    """

    def __init__(self, stage: SwinStage, blocks: list[FastSwinBlock]):
        super().__init__(stage)
        self.blocks = blocks

    def fits(self, x: torch.Tensor, **kwargs) -> bool:
        blocks = self.module.blocks
        same = untouched(blocks) and [block.module for block in self.blocks] == list(blocks)
        return same and 0 < x[:1].numel() <= PIECE and all(block.fits(x, **kwargs) for block in self.blocks)

    def fast(self, x: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()
        result, images = torch.empty_like(x), PIECE // x[:1].numel()
        for part, answer in zip(x.split(images), result.split(images), strict=True):
            kernels = [block.kernel(part.shape) for block in self.blocks]
            for kernel in kernels:
                kernel(part, answer)
                part = answer
        return self.module.merging(result), result


class FastMerging(FastWay):
    """Patch merging whose norm is part of its product."""

    def __init__(self, module: PatchMerging):
        super().__init__(module)
        self.product = PackedProduct()

    def fits(self, *args, **kwargs) -> bool:
        norm, reduction = self.module.norm, self.module.reduction
        return type(norm) is nn.LayerNorm and untouched(self.module) and self.product.fits(reduction)

    def fast(self, x_BHWC: torch.Tensor) -> torch.Tensor:
        return self.product(gather_neighbours(x_BHWC), self.module.reduction, norm=self.module.norm)


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
