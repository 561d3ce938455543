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
# Letters in formulas: n tokens of a grid, C channels, M² tokens of a window.
"""What a model costs for one image: parameters, operations by formula and by count, activations.

An operation is a multiplication with its addition, as papers count them: Swin-T has 4.5 G of them for 224 pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig, PreTrainedModel

import hf_swin

from .configuration_swin import HfSwinConfig, HfSwinV2Config, WindowBlockSpec
from .configuration_vit import BlockSpec, HfViTConfig, cover, pair
from .modeling_windows import window_layout


@dataclass(frozen=True)
class Part:
    """A part of a classifier and what it costs for one image; `by_formula` leaves the last three fields at zero.

    `grid` is (height, width) of its tokens, in a stage before merging; `prefix` counts the tokens before the grid,
    `blocks` its residual units; `channels` is the width of a token. `formula` and `counted` are operations,
    `activations` the bytes that training in float32 keeps for the backward pass.
    """

    name: str
    grid: tuple[int, int]
    prefix: int
    channels: int
    blocks: int
    formula: int
    counted: int = 0
    parameters: int = 0
    activations: int = 0


def attention(tokens: int, channels: int) -> int:
    """Return the operations of multi-head self-attention, Ω(MSA) = 4nC² + 2n²C: Swin Transformer (2021), eq. 1."""
    return 4 * tokens * channels**2 + 2 * tokens**2 * channels


def window_attention(tokens: int, channels: int, window: tuple[int, int]) -> int:
    """Return the operations of attention in windows of M² tokens, Ω(W-MSA) = 4nC² + 2M²nC: the same, eq. 2."""
    return 4 * tokens * channels**2 + 2 * prod(window) * tokens * channels


def mlp(tokens: int, spec: BlockSpec) -> int:
    """Return the operations of a block's MLP: two matrices of its width, or three where one makes the gate."""
    return (3 if spec.gated_mlp else 2) * tokens * spec.hidden_size * spec.intermediate_size


def window_block(config: HfSwinConfig, spec: WindowBlockSpec, grid: tuple[int, int]) -> int:
    """Return the operations of a Swin block on a grid; padded tokens take part in its attention, and in nothing else.

    The second version adds its bias network, which sees each offset within a window once: 2022, section 3.3.
    """
    layout = window_layout(grid, spec.window, spec.shifted, config.partition_rule, spec.home_grid)
    operations = window_attention(prod(layout.padded), spec.hidden_size, layout.window) + mlp(prod(grid), spec)
    if isinstance(config, HfSwinV2Config):
        offsets = prod(2 * side - 1 for side in layout.window)
        operations += offsets * (2 + spec.num_heads) * config.bias_hidden_size
    return operations


def by_formula(config: PreTrainedConfig, size: tuple[int, int]) -> list[Part]:
    """Return the parts of a classifier for an image of (height, width) pixels, their operations by formula alone."""
    parts = _vit if isinstance(config, HfViTConfig) else _swin
    return list(parts(config, cover(size, pair(config.patch_size))))


def _vit(config: HfViTConfig, grid: tuple[int, int]) -> Iterator[Part]:
    """Yield embeddings, all blocks and head."""
    width, prefix, specs = config.hidden_size, config.num_prefix_tokens, config.block_specs()
    tokens = prefix + prod(grid)
    yield Part("embeddings", grid, prefix, width, 0, _patches(config, grid, width))
    blocks = sum(attention(tokens, width) + mlp(tokens, spec) for spec in specs)
    yield Part("blocks", grid, prefix, width, len(specs), blocks)
    head = config.classifier_size * config.num_labels
    if config.use_distillation_head:
        head += width * config.num_labels
    if config.pooler == "always":
        head += width * (config.pooler_output_size or width)
    yield Part("head", grid, prefix, width, 0, head)


def _swin(config: HfSwinConfig, grid: tuple[int, int]) -> Iterator[Part]:
    """Yield embeddings, each stage with the merging after it, and head."""
    yield Part("embeddings", grid, 0, config.embed_dim, 0, _patches(config, grid, config.embed_dim))
    for number, spec in enumerate(config.stage_specs(), 1):
        width, after = spec.hidden_size, cover(grid, (2, 2)) if spec.merges else grid
        merging = prod(after) * 4 * width * 2 * width if spec.merges else 0
        blocks = sum(window_block(config, block, grid) for block in spec.blocks)
        yield Part(f"stage {number}", grid, 0, width, len(spec.blocks), blocks + merging)
        grid = after
    yield Part("head", grid, 0, config.hidden_size, 0, config.hidden_size * config.num_labels)


def _patches(config: PreTrainedConfig, grid: tuple[int, int], width: int) -> int:
    return prod(grid) * config.num_channels * prod(pair(config.patch_size)) * width


def on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the classifier of a config on PyTorch's meta device, where it runs without computing anything.

    Its attention is eager, whose products are counted under every name that they have in other kernels.
    """
    with torch.device("meta"):
        model = getattr(hf_swin, config.class_prefix + "ForImageClassification")(config).eval()
    model.set_attn_implementation("eager")
    return model


def count(model: PreTrainedModel, ends: Sequence[nn.Module], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return for each part of a model of `on_meta` the operations counted, and the bytes kept for the backward pass.

    A part ends when the next of the modules `ends` has run, which are in the order of the forward; the last part ends
    with it. `size` is (height, width) of one image in pixels. Parameters are not counted as kept, nor are masks and
    indices, which geometry alone decides.
    """
    kept: dict[int, torch.UntypedStorage] = {}
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    totals = [(0, 0)]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other storage can come to have its number
        return tensor

    def note(*_) -> None:
        totals.append((counter.get_total_flops() // 2, sum(storage.nbytes() for storage in kept.values())))

    pixels = torch.empty(1, model.config.num_channels, *size, device="meta")
    hooks = [module.register_forward_hook(note) for module in ends]
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda held: held):
        model(pixels)
    note()
    for hook in hooks:
        hook.remove()
    return [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(totals)]


def complexity(config: PreTrainedConfig, image_size: tuple[int, int] | None = None) -> list[Part]:
    """Return the parts of a classifier, first to last, for an image of (height, width) pixels or of the config's size.

    They are the embeddings, each stage of a Swin or all blocks of a ViT, and the head with the last norm.
    """
    size = image_size or pair(config.image_size)
    model = on_meta(config)
    body = model.base_model
    trunk = list(body.stages) if hasattr(body, "stages") else [body.layers]
    members = [body.embeddings, *trunk]
    ends = [member[-1] if isinstance(member, nn.ModuleList) else member for member in members]
    parameters = [sum(parameter.numel() for parameter in member.parameters()) for member in members]
    parameters.append(model.num_parameters() - sum(parameters))
    rows = zip(by_formula(config, size), count(model, ends, size), parameters, strict=True)
    return [
        replace(part, counted=operations, activations=activations, parameters=numbers)
        for part, (operations, activations), numbers in rows
    ]
