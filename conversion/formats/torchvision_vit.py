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
"""ViT of torchvision (BSD-3-Clause; SWAG weights CC-BY-NC-4.0)."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule, convert
from ..limits import PAPER_VIT
from ..operations import split
from ..sizes import VIT_LAYER, vit_config
from . import Signature, Tensors


FAMILY = "hf_vit"
FILE, CONTAINER = "model.pth", ""
FIRST = "encoder.layers.encoder_layer_0."
SIGNATURE = Signature(has=("class_token", "conv_proj.weight", FIRST + "mlp.0.weight"))
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    **PAPER_VIT,
    "pooler": ("none", "always"),
    "pooler_act": "tanh",
}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as torchvision's class does."""
    return vit_config(convert(tensors, rules(None)), hints, position_resizing="bicubic_align_corners")


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return table("mlp.0", "mlp.3")


def table(first: str, second: str) -> list[Rule]:
    """Returns the table for the names of the two layers of an MLP."""
    layer = "encoder.layers.encoder_layer_{i}."
    fused = tuple(f"{VIT_LAYER}attention.attention.{name}." for name in ("query", "key", "value"))
    return [
        Rule("class_token", "vit.embeddings.cls_token"),
        Rule("conv_proj.{p}", "vit.embeddings.patch_embeddings.projection.{p}"),
        Rule("encoder.pos_embedding", "vit.embeddings.position_embeddings"),
        Rule(layer + "ln_1.{p}", VIT_LAYER + "layernorm_before.{p}"),
        Rule(layer + "self_attention.in_proj_weight", tuple(name + "weight" for name in fused), split(3)),
        Rule(layer + "self_attention.in_proj_bias", tuple(name + "bias" for name in fused), split(3)),
        Rule(layer + "self_attention.out_proj.{p}", VIT_LAYER + "attention.output.dense.{p}"),
        Rule(layer + "ln_2.{p}", VIT_LAYER + "layernorm_after.{p}"),
        Rule(f"{layer}{first}.{{p}}", VIT_LAYER + "intermediate.dense.{p}"),
        Rule(f"{layer}{second}.{{p}}", VIT_LAYER + "output.dense.{p}"),
        Rule("encoder.ln.{p}", "vit.layernorm.{p}"),
        Rule("heads.pre_logits.{p}", "vit.pooler.dense.{p}"),
        Rule("heads.head.{p}", "classifier.{p}"),
    ]
