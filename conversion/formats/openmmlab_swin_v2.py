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
"""Swin v2 of OpenMMLab (mmpretrain, Apache-2.0): a stage begins with its merging, merged by nn.Unfold."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinV2Config

from ..keymap import Rule, convert
from ..operations import UNFOLDED
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin_v2, openmmlab_swin
from .microsoft_swin_v2 import BODY, STAGE, blocks, coordinates


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.pth", "state_dict"
SIGNATURE = Signature(
    has=("backbone.patch_embed.projection.weight", "backbone.stages.0.blocks.0.attn.w_msa.logit_scale"),
)
HOLDS = microsoft_swin_v2.HOLDS
BLOCKS = openmmlab_swin.BLOCKS


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as mmpretrain's class does; windows come from the saved coordinates."""
    found = coordinates(tensors, "backbone.stages.{s}.blocks.0.attn.w_msa.relative_coords_table")
    return swin_config(convert(tensors, rules(None)), hints, small_input="square", **found)


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table."""
    merging = "backbone.stages.{s+1}.downsample."
    return [
        *openmmlab_swin.stem(BODY),
        *blocks(BLOCKS, "ffn.layers.0.0", "ffn.layers.1", "attn.w_msa."),
        Rule(BLOCKS + "attn.w_msa.relative_position_index"),
        Rule(BLOCKS + "attn.w_msa.relative_coords_table"),
        Rule(merging + "norm.{p}", BODY + STAGE + "downsample.norm.{p}"),
        Rule(merging + "reduction.weight", BODY + STAGE + "downsample.reduction.weight", UNFOLDED),
        Rule("backbone.norm3.{p}", BODY + "layernorm.{p}"),
        Rule("head.fc.{p}", "classifier.{p}"),
    ]


def buffers(config: HfSwinV2Config) -> dict[str, torch.Tensor]:
    """Returns what this publisher saves and geometry decides."""
    tables = BLOCKS + "attn.w_msa.relative_coords_table"
    return {**openmmlab_swin.buffers(config), **microsoft_swin_v2.coordinate_tables(config, tables)}


def check(config: HfSwinV2Config) -> None:
    """Raises ValueError for windows that this publisher would choose otherwise, and for other depths."""
    microsoft_swin_v2.check(config)
    openmmlab_swin.four_stages(config)
