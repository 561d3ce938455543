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
"""ViT as google-research/big_vision saves it with `scan=True` (Apache-2.0): all blocks in one, along the first axis."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule
from . import Signature, Tensors, big_vision


FAMILY = "hf_vit"
FILE, CONTAINER = "model.npz", ""
LAYER = big_vision.LAYER.replace("_{i}", "")
SIGNATURE = Signature(has=(big_vision.ROOT + "embedding/kernel", LAYER + big_vision.QUERY))
HOLDS = big_vision.HOLDS


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as big_vision's class does."""
    return big_vision.read_config(tensors, hints, LAYER)


def rules(config: HfViTConfig) -> list[Rule]:
    """Returns the table."""
    return big_vision.table(LAYER, config, config.use_class_token and config.position_embedding_type == "learned")
