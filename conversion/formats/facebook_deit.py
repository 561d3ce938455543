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
"""DeiT, plain and distilled, of facebookresearch/deit (Apache-2.0): timm's names under "model", with a head."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_swin import HfViTConfig

from . import Tensors, timm_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = replace(
    timm_vit.SIGNATURE,
    has=(*timm_vit.SIGNATURE.has, "head.weight"),
    lacks=(*timm_vit.SIGNATURE.lacks, "fc_norm.weight"),
    container="model",
)
HOLDS: dict[str, Any] = {**timm_vit.HOLDS, "hidden_act": "gelu", "pooling": "class", "layerscale_value": None}
rules = timm_vit.rules


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as DeiT's class does."""
    return timm_vit.read_config(tensors, hints, rules(None), position_resizing="bicubic")
