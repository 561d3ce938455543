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
"""Swin and S3 of timm (Apache-2.0): Microsoft's names, but a stage begins with its merging and the head has a pool."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinConfig

from ..keymap import Rule, convert
from ..limits import windows_fit
from ..sizes import swin_config
from . import Signature, Tensors
from .microsoft_swin import BODY, STAGE, blocks, dropped, ends


FAMILY = "hf_swin"
FILE, CONTAINER = "model.safetensors", ""
SIGNATURE = Signature(
    has=("patch_embed.proj.weight", "layers.1.downsample.norm.weight", "layers.0.blocks.0.attn.qkv.weight"),
    lacks=("layers.0.downsample.norm.weight", "layers.0.blocks.0.attn.logit_scale"),
)
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "mask_padding": False,
    "use_absolute_embeddings": False,
}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as timm's class does."""
    return swin_config(convert(tensors, rules(None)), hints, small_input="clamp", bias_resizing="geometric_linear")


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    return [*around(BODY), *blocks("layers.{s}.blocks.{b}."), *dropped()]


def around(body: str) -> list[Rule]:
    """Returns what is not in a block."""
    kept = [rule for rule in ends(body) if rule.source not in ("head.{p}", "absolute_pos_embed")]
    return [
        *kept,
        Rule("layers.{s+1}.downsample.norm.{p}", body + STAGE + "downsample.norm.{p}"),
        Rule("layers.{s+1}.downsample.reduction.weight", body + STAGE + "downsample.reduction.weight"),
        Rule("head.fc.{p}", "classifier.{p}"),
    ]


def check(config: HfSwinConfig) -> None:
    """Raises ValueError for windows that timm would choose otherwise."""
    windows_fit(config)
