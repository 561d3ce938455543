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
"""Swin v2 as microsoft/Swin-Transformer saves it (MIT): `.pth` with the weights under "model"."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinV2Config
from hf_swin.modeling_windows import log_offsets

from ..keymap import Rule, convert
from ..limits import square_windows
from ..operations import split
from ..sizes import swin_config
from . import Signature, Tensors
from .microsoft_swin import BLOCK, STAGE, dropped, ends
from .microsoft_swin import buffers as first_buffers


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = Signature(
    has=("patch_embed.proj.weight", "layers.0.downsample.norm.weight", "layers.0.blocks.0.attn.logit_scale"),
    lacks=("mask_token",),
)
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "always_partition": False,
    "mask_padding": False,
    "bias_hidden_size": 512,
}
BODY = "swinv2."
TABLE = "layers.{s}.blocks.0.attn.relative_coords_table"


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as this publisher's class does; windows come from the saved coordinates."""
    sizes = convert(tensors, rules(None))
    return swin_config(sizes, hints, small_input="square", **coordinates(tensors, TABLE))


def coordinates(tensors: Tensors, template: str) -> dict[str, Any]:
    """Returns the windows and the pretrained windows that saved tables of coordinates were made for, if there are any.

    A table's corner is log2(1 + 8·(w-1)/(w'-1)) / 3 for a window w and the pretrained window w' (2022, section 3.3).
    """
    windows, pretrained = [], []
    while (key := template.format(s=len(windows))) in tensors:
        _, height, width, _ = tensors[key].shape
        window = (height + 1) // 2
        windows.append([window, (width + 1) // 2])
        corner = float(tensors[key].cpu()[0, -1, -1, 0]) if not tensors[key].is_meta else 1.0
        reference = 1 + 8 * (window - 1) / (2 ** (3 * corner) - 1) if window > 1 else 1
        pretrained.append(0 if round(reference) == window else round(reference))
    return {"windows": windows, "pretrained_window_sizes": pretrained} if windows else {}


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table."""
    return [
        *ends(BODY),
        *blocks("layers.{s}.blocks.{b}."),
        Rule("layers.{s}.downsample.norm.{p}", BODY + STAGE + "downsample.norm.{p}"),
        Rule("layers.{s}.downsample.reduction.weight", BODY + STAGE + "downsample.reduction.weight"),
        *dropped(),
        Rule("layers.{s}.blocks.{b}.attn.relative_coords_table"),
    ]


def blocks(block: str, first: str = "mlp.fc1", second: str = "mlp.fc2", attention: str = "attn.") -> list[Rule]:
    """Returns what is in a block, whose keys begin with the template `block`; the fused qkv has no bias of its own."""
    ours, attention = BODY + BLOCK, block + attention
    return [
        Rule(block + "norm1.{p}", ours + "layernorm_before.{p}"),
        Rule(attention + "logit_scale", ours + "attention.self.logit_scale"),
        Rule(attention + "cpb_mlp.0.{p}", ours + "attention.self.continuous_position_bias_mlp.0.{p}"),
        Rule(attention + "cpb_mlp.2.weight", ours + "attention.self.continuous_position_bias_mlp.2.weight"),
        Rule(
            attention + "qkv.weight",
            tuple(f"{ours}attention.self.{name}.weight" for name in ("query", "key", "value")),
            split(3),
        ),
        Rule(attention + "q_bias", ours + "attention.self.query.bias"),
        Rule(attention + "v_bias", ours + "attention.self.value.bias"),
        Rule(attention + "proj.{p}", ours + "attention.output.dense.{p}"),
        Rule(block + "norm2.{p}", ours + "layernorm_after.{p}"),
        Rule(f"{block}{first}.{{p}}", ours + "intermediate.dense.{p}"),
        Rule(f"{block}{second}.{{p}}", ours + "output.dense.{p}"),
    ]


def buffers(config: HfSwinV2Config) -> dict[str, torch.Tensor]:
    """Returns what this publisher saves and geometry decides."""
    return {**first_buffers(config), **coordinate_tables(config, "layers.{s}.blocks.{b}.attn.relative_coords_table")}


def coordinate_tables(config: HfSwinV2Config, template: str) -> dict[str, torch.Tensor]:
    """Returns the table of log-spaced coordinates of every block, (1, 2h-1, 2w-1, 2)."""
    made = {}
    for s, stage in enumerate(config.stage_specs()):
        for b, spec in enumerate(stage.blocks):
            offsets = log_offsets(spec.window, spec.reference_window, torch.device("cpu"))
            made[template.format(s=s, b=b)] = offsets.reshape(1, *(2 * side - 1 for side in spec.window), 2).clone()
    return made


def check(config: HfSwinV2Config) -> None:
    """Raises ValueError for windows that this publisher would choose otherwise."""
    square_windows(config)
