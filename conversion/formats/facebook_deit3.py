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
"""DeiT-III as facebookresearch/deit saves it (Apache-2.0): scaled branches, and no position for the class token."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule
from ..operations import CLASS_WITHOUT_POSITION
from ..sizes import VIT_LAYER
from . import Signature, Tensors, timm_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = Signature(has=("cls_token", "pos_embed", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight"))
HOLDS: dict[str, Any] = {
    **timm_vit.HOLDS,
    "hidden_act": "gelu",
    "pooling": "class",
    "use_class_token": True,
    "use_distillation_token": False,
}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as DeiT-III's class does."""
    return timm_vit.read_config(tensors, hints, rules(None), position_resizing="bicubic")


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *(rule for rule in timm_vit.ends(CLASS_WITHOUT_POSITION) if "dist" not in str(rule.source)),
        Rule("norm.{p}", "vit.layernorm.{p}"),
        *timm_vit.blocks(),
        Rule("blocks.{i}.gamma_1", VIT_LAYER + "layer_scale1.lambda1"),
        Rule("blocks.{i}.gamma_2", VIT_LAYER + "layer_scale2.lambda1"),
    ]


def check(config: HfViTConfig) -> None:
    """Raises ValueError for a model without scaled branches."""
    if config.layerscale_value is None:
        raise ValueError("it scales its branches and this model does not")
