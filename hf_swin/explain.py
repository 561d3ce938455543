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
# Shapes: N windows, A heads, T tokens that attend to each other (of a window, or all of them), H W grid of tokens.
"""What a model looks at: attention in image space, rollout and class maps, as arrays, for every model of ours."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .configuration_vit import cover, pair
from .errors import UserError, one_line
from .modeling_attention import SelfAttention
from .modeling_windows import WindowLayout, partition
from .parameters import blocks_of


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one block for one image, with the place on the grid of every token of every window.

    `weights` are (N, A, T queries, T keys), float32, each row of sum 1; a ViT has one window, of all tokens. `tokens`
    (N, T) says which token stands at each place of a window: tokens of the grid are numbered row by row from 0, the
    `prefix` tokens before the grid follow them, padding is -1. `grid` is (height, width) in tokens; `layout` is None
    for a ViT; `class_token` says whether the first token before the grid is one; under a token lie `stride` (height,
    width) pixels of the image.
    """

    name: str
    grid: tuple[int, int]
    prefix: int
    weights: np.ndarray
    tokens: np.ndarray
    layout: WindowLayout | None = None
    class_token: bool = False
    stride: tuple[int, int] = (1, 1)

    def attended(self, token: int) -> np.ndarray:
        """Returns the weights (A, H, W) by which a token mixes the tokens of the grid; zero outside its window.

        What it gives to padding and to tokens before the grid is not among them, so the sum of a head may be below 1.
        Raises UserError for a token that does not exist.
        """
        count = self.grid[0] * self.grid[1] + self.prefix
        if not 0 <= token < count:
            raise UserError(f"{self.name} has no token {token}: its {count} tokens are numbered from 0.")
        window, query = np.argwhere(self.tokens == token)[0]
        return self._on_grid(self.weights[window, :, query][None], self.tokens[window][None])

    def received(self) -> np.ndarray:
        """Returns the mean weight (A, H, W) that the tokens of its window give to each token of the grid.

        Padding receives, as a model may mix it in, but what it gives does not count.
        """
        real = (self.tokens >= 0).astype(np.float32)
        given = np.einsum("natk,nt->nak", self.weights, real / real.sum(1, keepdims=True).clip(1))
        return self._on_grid(given, self.tokens)

    def _on_grid(self, values_NAT: np.ndarray, tokens_NT: np.ndarray) -> np.ndarray:
        height, width = self.grid
        on_grid = (tokens_NT >= 0) & (tokens_NT < height * width)
        flat = np.zeros((values_NAT.shape[1], height * width), values_NAT.dtype)
        flat[:, tokens_NT[on_grid]] = values_NAT.transpose(1, 0, 2)[:, on_grid]
        return flat.reshape(-1, height, width)


def attention_maps(model: PreTrainedModel, pixel_values: torch.Tensor) -> list[AttentionMap]:
    """Returns the attention of every block, first to last, for one image (1, channels, height, width) of any size.

    The weights are those of the model's own forward; the model stays as it was. Raises UserError for several images
    and for a model of another package.
    """
    blocks = named_blocks(model)
    with _evaluating(model), torch.no_grad():
        attentions = _answer(model, pixel_values, output_attentions=True).attentions
    if len(attentions) != len(blocks):
        raise UserError(f"{type(model).__name__} answered for {len(attentions)} blocks of {len(blocks)}: load it anew.")
    grids = _grids(model, pixel_values.shape[-2:])
    return [
        _attention_map(name, block, grid, stride, weights[0].float().cpu().numpy())
        for (name, block), (grid, stride), weights in zip(blocks.items(), grids, attentions, strict=True)
    ]


def rollout(maps: Sequence[AttentionMap]) -> np.ndarray:
    """Returns how much of each patch reaches the class token through all blocks (H, W), or all patches on average.

    The weights of a block are the mean of its heads and, for the residual path, of the identity; the blocks are
    multiplied: Quantifying Attention Flow in Transformers (2020), section 3. Raises UserError for windows, whose grids
    differ from stage to stage.
    """
    if not maps or any(map_.layout is not None for map_ in maps):
        raise UserError("rollout multiplies the attention of all tokens of a ViT: for windows take a class map.")
    first = maps[0]
    count = first.grid[0] * first.grid[1]
    reached = np.eye(first.weights.shape[-1])
    for map_ in maps:
        weights_TT = map_.weights[0].mean(0)
        reached = 0.5 * (weights_TT / weights_TT.sum(1, keepdims=True) @ reached + reached)
    row_of = np.argsort(first.tokens[0])  # from the number of a token to its place in the sequence
    asking = row_of[count : count + 1] if first.class_token else row_of[:count]
    return reached[asking].mean(0)[row_of[:count]].reshape(first.grid)


def class_map(
    model: PreTrainedModel, pixel_values: torch.Tensor, label: int | None = None, block: int = -1
) -> np.ndarray:
    """Returns where the tokens that a block reads speak for a label (H, W), zero where they do not, in units of logits.

    Each channel counts by the mean gradient of the label's logit: Grad-CAM (2017), section 3. `label` None is the
    likeliest one. Tokens before the grid are left out. The model stays as it was. Raises UserError for several images,
    a model without a classifier, and a label or block that does not exist.
    """
    blocks = list(named_blocks(model).values())
    if not has_classifier(model):
        raise UserError(f"{type(model).__name__} has no classifier to explain: fine-tune it, or look at its attention.")
    if label is not None and not 0 <= label < model.config.num_labels:
        raise UserError(f"there is no label {label}: the model's {model.config.num_labels} are numbered from 0.")
    if not -len(blocks) <= block < len(blocks):
        raise UserError(f"there is no block {block}: the model's {len(blocks)} are numbered from 0, or from -1 back.")
    read: list[torch.Tensor] = []

    def start_here(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        read.append(args[0].detach().requires_grad_())
        return (read[0], *args[1:])

    hook = blocks[block].register_forward_pre_hook(start_here)
    try:
        with _evaluating(model), torch.inference_mode(False), torch.enable_grad():
            logits = _answer(model, pixel_values.clone()).logits[0]
            (gradient,) = torch.autograd.grad(logits[logits.argmax() if label is None else label], read)
    finally:
        hook.remove()
    on_grid = reshape_transform(model, pixel_values.shape[-2:])
    tokens_CHW, gradient_CHW = on_grid(read[0].detach())[0].float(), on_grid(gradient)[0].float()
    weighted_CHW = gradient_CHW.mean((1, 2), keepdim=True) * tokens_CHW
    return weighted_CHW.sum(0).clamp(min=0).cpu().numpy()


def reshape_transform(
    model: PreTrainedModel, image_size: int | tuple[int, int] | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a function from the tokens of a block to (B, C, H, W), as pytorch-grad-cam and captum want them.

    It takes what any block, the embeddings or a merging give out. `image_size` in pixels, (height, width) or one number
    for both, is the config's if not given, and matters to a ViT alone: Swin's tokens carry their grid. The function
    raises UserError for tokens of another image size.
    """
    _check_ours(model)
    grid = cover(pair(image_size or model.config.image_size), pair(model.config.patch_size))
    prefix = getattr(model.config, "num_prefix_tokens", 0)

    def on_grid(tokens: torch.Tensor) -> torch.Tensor:
        if tokens.ndim == 4:
            return tokens.permute(0, 3, 1, 2)
        if tokens.shape[1] != prefix + grid[0] * grid[1]:
            raise UserError(
                f"{tokens.shape[1]} tokens are not {prefix} and a grid of {grid[0]}x{grid[1]}: give the image_size."
            )
        return tokens[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)

    return on_grid


def named_blocks(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Returns the blocks of a model, first to last, by the names that pictures and pages give them."""
    _check_ours(model)
    parts = list(blocks_of(model))
    if not hasattr(parts[0], "blocks"):
        return {f"block {number}": block for number, block in enumerate(parts, 1)}
    return {
        f"stage {stage}, block {number}": block
        for stage, part in enumerate(parts, 1)
        for number, block in enumerate(part.blocks, 1)
    }


def has_classifier(model: PreTrainedModel) -> bool:
    """Returns whether a model answers with labels."""
    return isinstance(getattr(model, "classifier", None), nn.Linear)


def _check_ours(model: PreTrainedModel) -> None:
    if not any(isinstance(module, SelfAttention) for module in model.modules()):
        raise UserError(f"{type(model).__name__} is no model of hf_swin: open it by the classes of this package.")


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Puts the model into evaluation mode for a while; afterwards each module has the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _answer(model: PreTrainedModel, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
    if pixel_values.ndim != 4 or pixel_values.shape[0] != 1:
        raise UserError(
            f"pixel_values {tuple(pixel_values.shape)} are not one image: give (1, channels, height, width)."
        )
    try:
        # `forward` itself: a compiled model would be compiled again for what is asked here.
        return model.forward(pixel_values.to(model.device), return_dict=True, **kwargs)
    except ValueError as error:
        raise UserError(f"the model does not take this image: {one_line(error)}") from error


def _grids(model: PreTrainedModel, size: Sequence[int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Gives the grid that each block reads of an image (height, width), and the pixels under one of its tokens."""
    stride = pair(model.config.patch_size)
    grid = cover(tuple(size), stride)
    for part in blocks_of(model):
        for _ in getattr(part, "blocks", [part]):
            yield grid, stride
        if hasattr(part, "merging"):
            grid, stride = cover(grid, (2, 2)), (2 * stride[0], 2 * stride[1])


def _attention_map(
    name: str, block: nn.Module, grid: tuple[int, int], stride: tuple[int, int], weights: np.ndarray
) -> AttentionMap:
    count = grid[0] * grid[1]
    if hasattr(block.attention, "layout"):
        layout = block.attention.layout(grid)
        numbers_BHWC = 1 + torch.arange(count).reshape(1, *grid, 1)  # so that the zeros of padding are nobody's number
        tokens_NT = partition(numbers_BHWC, layout).squeeze(-1).numpy() - 1
        return AttentionMap(name, grid, 0, weights, tokens_NT, layout, stride=stride)
    config = block.attention.config
    prefix = config.num_prefix_tokens
    tokens_NT = np.concatenate([count + np.arange(prefix), np.arange(count)])[None]
    return AttentionMap(name, grid, prefix, weights[None], tokens_NT, None, config.use_class_token, stride)
