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
"""Swin inside the detectors and segmenters of OpenMMLab (mmdet, mmseg; Apache-2.0): one norm for each feature map."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinConfig

from ..keymap import Rule, convert
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin, openmmlab_swin


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", "state_dict"
SIGNATURE = Signature(
    has=("backbone.stages.0.blocks.0.attn.w_msa.qkv.weight", "backbone.norm2.weight", "backbone.norm3.weight"),
)
HOLDS: dict[str, Any] = {**openmmlab_swin.HOLDS, "always_partition": True, "apply_layernorm": True}
# The other parts of a detector or a segmenter.
OTHERS = (
    "neck",
    "rpn_head",
    "roi_head",
    "bbox_head",
    "mask_head",
    "decode_head",
    "auxiliary_head",
    "data_preprocessor",
)
check = microsoft_swin.check
buffers = openmmlab_swin.buffers


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as mmdet's class does."""
    return swin_config(convert(tensors, rules(None)), hints, **detector(tensors))


def detector(tensors: Tensors) -> dict[str, Any]:
    """Returns how a detector's Swin computes: it always partitions and shifts, and gives out the maps with a norm."""
    maps = [f"stage{s + 1}" for s in range(4) if {f"backbone.norm{s}.weight", f"backbone.norm{s}.bias"} & set(tensors)]
    return {"always_partition": True, "out_features": maps}


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    return [*openmmlab_swin.body(), *around()]


def around() -> list[Rule]:
    """Returns the norms of the feature maps, and what is left out."""
    return [
        Rule("backbone.norm{s}.{p}", "hidden_states_norms.stage{s+1}.{p}"),
        *(Rule(part + ".{rest}") for part in OTHERS),
    ]
