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
"""Swin v2 of transformers (Apache-2.0), whose names in memory are those of its files and of this package."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hf_swin import HfSwinV2Config

from .. import stock
from ..keymap import Rule
from ..limits import square_patches, square_windows
from ..sizes import swin_config
from . import Tensors
from .transformers_swin import BLOCK, LEGACY, signature
from .transformers_swin import table as first_table


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.safetensors", ""
STOCK, BODY = "Swinv2", "swinv2."
# Stock absolute positions have a row too many and never run (defect D14).
HOLDS: dict[str, Any] = {
    "always_partition": False,
    "mask_padding": False,
    "use_absolute_embeddings": False,
    "bias_hidden_size": 512,
}
SIGNATURE = signature(BODY, "attention.self.logit_scale")
NAMES = {
    **{theirs: ours for theirs, ours in LEGACY.items() if "table" not in theirs},
    "attention.self.logit_scale": "attention.self.logit_scale",
    **{f"attention.self.continuous_position_bias_mlp.{layer}.{{p}}": None for layer in (0, 2)},
}
NAMES = {theirs: ours or theirs for theirs, ours in NAMES.items()}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as the stock class does."""
    numerics = {
        name: value
        for name, value in HfSwinV2Config.stock_defaults["swinv2"].items()
        if name not in ("image_size", "window_size")
    }
    return stock.read_config(HfSwinV2Config, tensors, hints, STOCK, BODY, table, partial(swin_config, **numerics))


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table."""
    return table(stock.prefix_of(config, BODY))


def table(body: str) -> list[Rule]:
    """Returns the table for the prefix of a file."""
    return [
        *first_table(NAMES, BODY, body, {body}),
        Rule(body + BLOCK + "attention.self.relative_coords_table"),
    ]


def check(config: HfSwinV2Config) -> None:
    """Raises ValueError for windows and images that the stock class computes wrongly (defect D16) or not at all."""
    square_windows(config)
    square_patches(config)


def stock_config(config: HfSwinV2Config, tensors: Tensors) -> Any:
    """Returns the stock config of a model with these tensors, under stock names."""
    windows = {stage.blocks[0].window[0] for stage in config.stage_specs()}
    return stock.stock_config(config, "Swinv2Config", window_size=max(windows))
