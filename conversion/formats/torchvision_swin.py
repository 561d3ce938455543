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
"""Swin of torchvision (BSD-3-Clause): stages and mergings in one row of `features`; one window, never shrunk."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinConfig
from hf_swin.modeling_windows import relative_index

from ..keymap import Rule, convert
from ..limits import one_window
from ..sizes import swin_config
from . import Signature, Tensors
from .microsoft_swin import BODY, STAGE, blocks


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", ""
SIGNATURE = Signature(
    has=("features.0.0.weight", "features.1.0.attn.relative_position_bias_table", "features.2.norm.weight")
)
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "always_partition": False,
    "mask_padding": False,
    "use_absolute_embeddings": False,
}
STAGE_BLOCK = "features.{2*s+1}.{b}."


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as torchvision's class does."""
    return swin_config(convert(tensors, rules(None)), hints, small_input="pad")


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *around(BODY),
        *blocks(STAGE_BLOCK, "mlp.0", "mlp.3"),
        Rule(STAGE_BLOCK + "attn.relative_position_index"),
    ]


def around(body: str) -> list[Rule]:
    """Returns what is not in a block."""
    return [
        Rule("features.0.0.{p}", body + "embeddings.patch_embeddings.projection.{p}"),
        Rule("features.0.2.{p}", body + "embeddings.norm.{p}"),
        Rule("features.{2*s+2}.norm.{p}", body + STAGE + "downsample.norm.{p}"),
        Rule("features.{2*s+2}.reduction.weight", body + STAGE + "downsample.reduction.weight"),
        Rule("norm.{p}", body + "layernorm.{p}"),
        Rule("head.{p}", "classifier.{p}"),
    ]


def buffers(config: HfSwinConfig) -> dict[str, torch.Tensor]:
    """Returns what torchvision saves and geometry decides: the pairs' rows of the table, flat."""
    return {
        f"features.{2 * s + 1}.{b}.attn.relative_position_index": relative_index(
            spec.window, spec.window, torch.device("cpu")
        ).flatten()
        for s, stage in enumerate(config.stage_specs())
        for b, spec in enumerate(stage.blocks)
    }


def check(config: HfSwinConfig) -> None:
    """Raises ValueError for windows that torchvision has no place for."""
    one_window(config)
