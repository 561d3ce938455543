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
"""Distilled DeiT of transformers 5 (Apache-2.0) saved under its names in memory (`save_original_format=False`)."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from .. import stock
from ..keymap import Rule
from . import Tensors
from .transformers_deit import BODY, HOLDS, STOCK, architecture, read_config, signature, stock_config, table
from .transformers_vit import RUNTIME


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
SIGNATURE = signature(RUNTIME)

__all__ = ["HOLDS", "STOCK", "architecture", "stock_config"]


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, RUNTIME)


def rules(config: HfViTConfig) -> list[Rule]:
    """Returns the table."""
    return table(RUNTIME, stock.prefix_of(config, BODY), config.use_distillation_head)
