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
"""Swin inside Microsoft's detection and segmentation repositories (Apache-2.0, MIT): one norm for each feature map."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinConfig

from ..keymap import Rule, convert
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin, openmmlab_swin_backbone
from .simmim_swin import under


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", "state_dict"
SIGNATURE = Signature(has=("backbone.layers.0.blocks.0.attn.qkv.weight", "backbone.norm3.weight"))
HOLDS = openmmlab_swin_backbone.HOLDS
check = microsoft_swin.check


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as these repositories' class does."""
    return swin_config(convert(tensors, rules(None)), hints, **openmmlab_swin_backbone.detector(tensors))


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    encoder = [rule for rule in microsoft_swin.rules(config) if rule.source not in ("norm.{p}", "absolute_pos_embed")]
    return [*under("backbone.", encoder), *openmmlab_swin_backbone.around()]


def buffers(config: HfSwinConfig) -> dict:
    """Returns what these repositories save and geometry decides; masks they make for each picture."""
    made = microsoft_swin.buffers(config)
    return {f"backbone.{key}": tensor for key, tensor in made.items() if not key.endswith("attn_mask")}
