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
"""Swin v2 of timm (Apache-2.0): Microsoft's names, but a stage begins with its merging; no window is saved."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinV2Config

from ..keymap import Rule, convert
from ..sizes import swin_config
from . import Signature, Tensors
from .microsoft_swin import dropped
from .microsoft_swin_v2 import BODY, TABLE, blocks, coordinates
from .timm_swin import HOLDS as FIRST_HOLDS
from .timm_swin import around


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.safetensors", ""
SIGNATURE = Signature(
    has=("patch_embed.proj.weight", "layers.1.downsample.norm.weight", "layers.0.blocks.0.attn.logit_scale"),
    lacks=("layers.0.downsample.norm.weight",),
)
HOLDS: dict[str, Any] = {**FIRST_HOLDS, "bias_hidden_size": 512}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as timm's class does; old files have coordinates that tell the windows."""
    found = coordinates(tensors, TABLE)
    return swin_config(convert(tensors, rules(None)), hints, small_input="clamp", **found)


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table."""
    return [
        *around(BODY),
        *blocks("layers.{s}.blocks.{b}."),
        *dropped(),
        Rule("layers.{s}.blocks.{b}.attn.relative_coords_table"),
        Rule("layers.{s}.blocks.{b}.attn.k_bias"),
    ]
