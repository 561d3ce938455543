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
"""ViT of torchvision before 0.13 and as released (BSD-3-Clause): `linear_1` and `linear_2` in the MLP."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule, convert
from ..sizes import vit_config
from . import Signature, Tensors, torchvision_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.pth", ""
SIGNATURE = Signature(has=("class_token", "conv_proj.weight", torchvision_vit.FIRST + "mlp.linear_1.weight"))
HOLDS = torchvision_vit.HOLDS


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as torchvision's class does."""
    return vit_config(convert(tensors, rules(None)), hints, position_resizing="bicubic_align_corners")


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return torchvision_vit.table("mlp.linear_1", "mlp.linear_2")
