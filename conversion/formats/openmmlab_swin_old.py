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
"""Swin classifiers of OpenMMLab as released in 2021 (mmcls 0.13, Apache-2.0): the last norm has no number."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinConfig

from ..keymap import Rule, convert
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin, openmmlab_swin


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", "state_dict"
SIGNATURE = Signature(has=(*openmmlab_swin.SIGNATURE.has, "backbone.norm.weight"))
HOLDS = openmmlab_swin.HOLDS
check = microsoft_swin.check


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as mmcls's class does."""
    return swin_config(convert(tensors, rules(None)), hints, small_input="square")


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *openmmlab_swin.body(),
        Rule("backbone.norm.{p}", openmmlab_swin.BODY + "layernorm.{p}"),
        Rule("head.fc.{p}", "classifier.{p}"),
    ]


def buffers(config: HfSwinConfig) -> dict[str, torch.Tensor]:
    """Returns what mmcls saved and geometry decides, its masks too."""
    made = microsoft_swin.buffers(config)
    masks = {key: tensor for key, tensor in made.items() if key.endswith("attn_mask")}
    named = {
        f"backbone.{key.replace('layers.', 'stages.', 1).replace('attn_mask', 'attn.attn_mask')}": tensor
        for key, tensor in masks.items()
    }
    return {**openmmlab_swin.buffers(config), **named}
