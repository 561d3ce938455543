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
"""The parameters of a model as fine-tuning sees them: how deep each lies, which decay, which stay frozen."""

import re
from typing import Any

from torch import nn

from .recipe import Recipe


# Tables of tokens, positions and position biases, and temperatures: decay would pull them towards a value that means
# nothing. The same list as `no_weight_decay` in the official Swin, Swin v2 and timm code.
NO_DECAY = re.compile(
    r"(cls_token|distillation_token|register_tokens|mask_token|position_embeddings|relative_position_bias_table|logit_scale)$"
    r"|(^|\.)continuous_position_bias\."
)
# Where a parameter lies; what a wrapper (PEFT, DDP, FSDP) puts before the name does not matter.
BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.|(?:^|\.)stages\.(\d+)\.(?:blocks\.(\d+)|merging)\.")
EMBEDDINGS = re.compile(r"(^|\.)embeddings\.")


def depth_of(name: str, config) -> int:
    """Return the place of a parameter on the way through the model: 0 embeddings, 1 … n blocks, n + 1 the rest.

    A merging counts with the last block before it, as in the fine-tuning of SimMIM (2022).
    """
    if EMBEDDINGS.search(name):
        return 0
    depths = getattr(config, "depths", None) or [config.num_hidden_layers]
    found = BLOCK.search(name)
    if not found:
        return sum(depths) + 1
    layer, stage, block = (int(number) if number else None for number in found.groups())
    if layer is not None:
        return layer + 1
    return sum(depths[:stage]) + (depths[stage] if block is None else block + 1)


def parameter_groups(model: nn.Module, recipe: Recipe, config) -> list[dict[str, Any]]:
    """Split the trainable parameters by depth (layer-wise decay of the learning rate) and by whether they decay."""
    last = depth_of("classifier", config)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not NO_DECAY.search(name)
        depth = depth_of(name, config) if recipe.layer_decay < 1 else last
        rate = recipe.learning_rate * recipe.layer_decay ** (last - depth)
        decay = recipe.weight_decay if decays else 0.0
        group = groups.setdefault((depth, decays), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return the parts of a trunk that follow each other: the blocks of a ViT, the stages of a Swin."""
    return model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.stages


def freeze(model: nn.Module, parts: int) -> list[nn.Module]:
    """Stop the training of the embeddings and the first `parts` stages (Swin) or blocks (ViT), and return them.

    Raises `ValueError` if the model has fewer, or adapters, which leave everything else as it is anyway.
    """
    if not parts:
        return []
    if hasattr(model, "merge_and_unload"):
        raise ValueError("the speed 'lora' trains nothing but its adapters; leave --freeze out")
    row = blocks_of(model)
    if parts > len(row):
        raise ValueError(f"the model has {len(row)} stages or blocks, not {parts}")
    frozen = [model.base_model.embeddings, *row[:parts]]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
