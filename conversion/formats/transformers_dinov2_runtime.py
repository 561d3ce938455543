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
"""DINOv2 of transformers 5 (Apache-2.0) saved under its names in memory (`save_original_format=False`)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hf_swin import HfViTConfig

from .. import stock
from ..keymap import Rule
from ..operations import split
from ..sizes import VIT_LAYER
from . import Tensors, transformers_dinov2
from .timm_vit import plain_or_gated
from .transformers_dinov2 import (
    BODIES,
    HOLDS,
    STOCK,
    architecture,
    around,
    buffers,
    check,
    plain,
    read_config,
    signature,
    stock_config,
)


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
SIGNATURE = signature("attention.q_proj")
ATTENTION = dict(
    zip(
        ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
        transformers_dinov2.ATTENTION,
        strict=True,
    )
)

__all__ = ["HOLDS", "STOCK", "architecture", "buffers", "check", "stock_config"]


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, partial(table, None))


def rules(config: HfViTConfig) -> list[Rule]:
    """Returns the table."""
    return table(config, stock.prefix_of(config, BODIES[config.num_register_tokens > 0]))


def table(config: HfViTConfig | None, body: str) -> list[Rule]:
    """Returns the table; the giant's gate and what is gated are apart."""
    layer = body + "encoder.layer.{i}.mlp."
    gated = [
        Rule(
            (layer + "gate_proj.{p}", layer + "up_proj.{p}"), VIT_LAYER + "intermediate.dense.{p}", split(2).inverse()
        ),
        Rule(layer + "down_proj.{p}", VIT_LAYER + "output.dense.{p}"),
    ]
    return [*around(body, ATTENTION), *plain_or_gated(config, plain(body), gated)]
