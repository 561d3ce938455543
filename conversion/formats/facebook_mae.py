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
"""MAE as facebookresearch/mae saves it (CC-BY-NC-4.0): timm's names under "model"; the decoder is left out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule
from . import Tensors, timm_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = replace(
    timm_vit.SIGNATURE,
    lacks=tuple(key for key in timm_vit.SIGNATURE.lacks if key != "mask_token"),
    container="model",
    shapes=lambda tensors: timm_vit.class_has_position(tensors) and is_mae(tensors),
)
HOLDS: dict[str, Any] = {**timm_vit.HOLDS, "hidden_act": "gelu", "layerscale_value": None}
DECODER = ("mask_token", "decoder_pos_embed", "decoder_embed.{p}", "decoder_norm.{p}", "decoder_pred.{p}")


def is_mae(tensors: Tensors) -> bool:
    """Returns whether tensors are a pre-trained encoder, with or without decoder, or one fine-tuned on the mean."""
    return "head.weight" not in tensors or "fc_norm.weight" in tensors


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as MAE's class does."""
    return timm_vit.read_config(tensors, hints, rules(None), position_resizing="bicubic")


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return [*timm_vit.rules(config), *map(Rule, DECODER), Rule("decoder_blocks.{rest}")]
