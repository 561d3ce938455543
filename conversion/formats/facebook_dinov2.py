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
"""DINOv2, with and without registers, as facebookresearch/dinov2 saves it (Apache-2.0)."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfViTConfig

from ..keymap import Rule
from ..operations import RENAME, reshape
from ..sizes import VIT_LAYER
from . import Signature, Tensors, timm_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.pth", ""
SIGNATURE = Signature(
    has=("cls_token", "pos_embed", "mask_token", "blocks.0.attn.qkv.weight", "blocks.0.ls1.gamma"),
)
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "position_embedding_type": "learned",
    "pooler": ("none", "model"),
    "norm_after_pooling": False,
    "use_class_token": True,
    "use_distillation_token": False,
}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as DINOv2's class does; with registers it resizes positions in another way."""
    rule = "bicubic_antialias" if "register_tokens" in tensors else "bicubic_offset"
    return timm_vit.read_config(tensors, hints, rules(None), position_resizing=rule, pooling="class_and_mean")


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table; the giant's fused w12 has the gate first, as ours."""
    return [
        *(rule for rule in timm_vit.ends(RENAME) if "dist" not in rule.source and "head" not in rule.source),
        Rule("register_tokens", "vit.embeddings.register_tokens"),
        Rule("mask_token", "vit.embeddings.mask_token", reshape((1, -1), (1, 1, -1))),
        Rule("norm.{p}", "vit.layernorm.{p}"),
        *timm_vit.attention(),
        *timm_vit.plain_or_gated(config, mlp("fc1", "fc2"), mlp("w12", "w3")),
        Rule("blocks.{i}.ls1.gamma", VIT_LAYER + "layer_scale1.lambda1"),
        Rule("blocks.{i}.ls2.gamma", VIT_LAYER + "layer_scale2.lambda1"),
    ]


def buffers(config: HfViTConfig) -> dict[str, torch.Tensor]:
    """Returns the mask token of a model that has none: DINOv2's class wants one and uses it in training alone."""
    return {"mask_token": torch.zeros(1, config.hidden_size)}


def check(config: HfViTConfig) -> None:
    """Raises ValueError for a model without scaled branches."""
    if config.layerscale_value is None:
        raise ValueError("it scales its branches and this model does not")


def mlp(first: str, second: str) -> list[Rule]:
    """Returns the two layers of an MLP by their names."""
    return [
        Rule(f"blocks.{{i}}.mlp.{first}.{{p}}", VIT_LAYER + "intermediate.dense.{p}"),
        Rule(f"blocks.{{i}}.mlp.{second}.{{p}}", VIT_LAYER + "output.dense.{p}"),
    ]
