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
"""Swin v2 of torchvision (BSD-3-Clause): a fused bias with zeros for the keys, and no pretrained windows."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinV2Config

from ..keymap import Rule, convert
from ..limits import one_window
from ..operations import SPLIT_WITHOUT_KEY
from ..sizes import swin_config
from . import Signature, Tensors
from . import torchvision_swin as first
from .microsoft_swin import BLOCK
from .microsoft_swin_v2 import BODY, blocks, coordinate_tables, coordinates


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.pth", ""
SIGNATURE = Signature(has=("features.0.0.weight", "features.1.0.attn.logit_scale", "features.2.norm.weight"))
HOLDS: dict[str, Any] = {**first.HOLDS, "bias_hidden_size": 512}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as torchvision's class does."""
    found = coordinates(tensors_by_stage(tensors), "{s}")
    return swin_config(convert(tensors, rules(None)), hints, small_input="pad", **found)


def tensors_by_stage(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Returns the coordinates of each stage under its number."""
    tables = {str(s): f"features.{2 * s + 1}.0.attn.relative_coords_table" for s in range(len(tensors))}
    return {stage: tensors[key] for stage, key in tables.items() if key in tensors}


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table."""
    block, ours = first.STAGE_BLOCK, BODY + BLOCK + "attention.self."
    kept = [rule for rule in blocks(block, "mlp.0", "mlp.3") if not str(rule.source).endswith("_bias")]
    return [
        *first.around(BODY),
        *kept,
        Rule(block + "attn.qkv.bias", (ours + "query.bias", ours + "value.bias"), SPLIT_WITHOUT_KEY),
        Rule(block + "attn.relative_position_index"),
        Rule(block + "attn.relative_coords_table"),
    ]


def buffers(config: HfSwinV2Config) -> dict[str, torch.Tensor]:
    """Returns what torchvision saves and geometry decides."""
    tables = coordinate_tables(config, "{s} {b}")
    names = {key: key.split() for key in tables}
    return {
        **first.buffers(config),
        **{f"features.{2 * int(s) + 1}.{b}.attn.relative_coords_table": tables[key] for key, (s, b) in names.items()},
    }


def check(config: HfSwinV2Config) -> None:
    """Raises ValueError for windows that torchvision has no place for."""
    one_window(config)
    if any(config.pretrained_window_sizes):
        raise ValueError(f"it has no pretrained windows and this model has {list(config.pretrained_window_sizes)}")
