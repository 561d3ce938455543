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
"""Swin of transformers 5 (Apache-2.0) saved under its names in memory (`save_original_format=False`)."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinConfig

from .. import stock
from ..keymap import Rule
from . import Tensors
from .transformers_swin import (
    BODY,
    HOLDS,
    RUNTIME,
    STOCK,
    check,
    is_backbone,
    read_config,
    signature,
    stock_config,
    table,
)


FAMILY = "hf_swin"
FILE, CONTAINER = "model.safetensors", ""
SIGNATURE = signature(BODY, "attention.relative_position_bias.relative_position_bias_table")

__all__ = ["HOLDS", "STOCK", "check", "stock_config"]


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, RUNTIME)


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table; in memory a stock backbone has a body, so its keys have the prefix."""
    body = BODY if is_backbone(config) else stock.prefix_of(config, BODY)
    return table(RUNTIME, BODY, body, {body})
