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
"""Swin as microsoft/Swin-Transformer saves it (MIT): `.pth` with the weights under "model"."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinConfig
from hf_swin.modeling_windows import relative_index, separated, window_layout

from ..keymap import Rule, convert
from ..limits import square_windows, windows_fit
from ..operations import split
from ..sizes import swin_config
from . import Signature, Tensors


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = Signature(
    has=("patch_embed.proj.weight", "layers.0.downsample.norm.weight", "layers.0.blocks.0.attn.qkv.weight"),
    lacks=("layers.0.blocks.0.attn.logit_scale", "norm0.weight", "mask_token"),
)
HOLDS: dict[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "always_partition": False, "mask_padding": False}

BODY = "swin."
STAGE = "encoder.layers.{s}."
BLOCK = STAGE + "blocks.{b}."


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as this publisher's class does."""
    sizes = convert(tensors, rules(None))
    return swin_config(sizes, hints, small_input="square", bias_resizing="bicubic")


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *ends(),
        *blocks("layers.{s}.blocks.{b}."),
        Rule("layers.{s}.downsample.norm.{p}", BODY + STAGE + "downsample.norm.{p}"),
        Rule("layers.{s}.downsample.reduction.weight", BODY + STAGE + "downsample.reduction.weight"),
        *dropped(),
    ]


def ends(body: str = BODY) -> list[Rule]:
    """Returns what comes before and after the stages."""
    return [
        Rule("patch_embed.proj.{p}", body + "embeddings.patch_embeddings.projection.{p}"),
        Rule("patch_embed.norm.{p}", body + "embeddings.norm.{p}"),
        Rule("absolute_pos_embed", body + "embeddings.position_embeddings"),
        Rule("norm.{p}", body + "layernorm.{p}"),
        Rule("head.{p}", "classifier.{p}"),
    ]


def blocks(block: str, first: str = "mlp.fc1", second: str = "mlp.fc2", attention: str = "attn.") -> list[Rule]:
    """Returns what is in a block, whose keys begin with the template `block`."""
    ours, attention = BODY + BLOCK, block + attention
    return [
        Rule(block + "norm1.{p}", ours + "layernorm_before.{p}"),
        Rule(attention + "relative_position_bias_table", ours + "attention.self.relative_position_bias_table"),
        Rule(
            attention + "qkv.{p}",
            tuple(f"{ours}attention.self.{name}.{{p}}" for name in ("query", "key", "value")),
            split(3),
        ),
        Rule(attention + "proj.{p}", ours + "attention.output.dense.{p}"),
        Rule(block + "norm2.{p}", ours + "layernorm_after.{p}"),
        Rule(f"{block}{first}.{{p}}", ours + "intermediate.dense.{p}"),
        Rule(f"{block}{second}.{{p}}", ours + "output.dense.{p}"),
    ]


def dropped() -> list[Rule]:
    """Returns the buffers that geometry alone decides."""
    return [
        Rule("layers.{s}.blocks.{b}.attn.relative_position_index"),
        Rule("layers.{s}.blocks.{b}.attn_mask"),
    ]


def buffers(config: HfSwinConfig) -> dict[str, torch.Tensor]:
    """Returns what this publisher saves and geometry decides."""
    made, cpu = {}, torch.device("cpu")
    for s, stage in enumerate(config.stage_specs()):
        for b, spec in enumerate(stage.blocks):
            layout = window_layout(spec.home_grid, spec.window, spec.shifted, config.partition_rule, spec.home_grid)
            block = f"layers.{s}.blocks.{b}."
            made[block + "attn.relative_position_index"] = relative_index(layout.window, layout.window, cpu).clone()
            hidden = separated(layout, False, cpu)
            if hidden is not None:
                made[block + "attn_mask"] = torch.where(hidden[:, 0], -100.0, 0.0)
    return made


def check(config: HfSwinConfig) -> None:
    """Raises ValueError for windows that this publisher would choose otherwise."""
    square_windows(config)
    windows_fit(config)
