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
"""ViT of timm (Apache-2.0) whose class token has no position: DeiT-III, and DINOv2 with registers."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule
from ..operations import CLASS_WITHOUT_POSITION
from ..sizes import VIT_LAYER
from . import Signature, Tensors, timm_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
SIGNATURE = Signature(
    has=("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    lacks=("mask_token", "register_tokens", "blocks.0.gamma_1"),
    container="",
    shapes=lambda tensors: not timm_vit.class_has_position(tensors),
)
HOLDS: dict[str, Any] = {name: values for name, values in timm_vit.HOLDS.items() if name != "num_register_tokens"}
HOLDS |= {"use_class_token": True, "use_distillation_token": False}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as timm's class does."""
    return timm_vit.read_config(tensors, hints, rules(None), position_resizing="bicubic_antialias")


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    kept = [rule for rule in timm_vit.ends(CLASS_WITHOUT_POSITION) if "dist" not in str(rule.source)]
    return [
        *kept,
        Rule("reg_token", "vit.embeddings.register_tokens"),
        *timm_vit.norms(config),
        *timm_vit.blocks(),
        Rule("blocks.{i}.ls1.gamma", VIT_LAYER + "layer_scale1.lambda1"),
        Rule("blocks.{i}.ls2.gamma", VIT_LAYER + "layer_scale2.lambda1"),
    ]
