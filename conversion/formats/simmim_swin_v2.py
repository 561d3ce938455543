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
"""Swin v2 pre-trained by SimMIM (hub `zdaxie/SimMIM`, MIT): encoder and decoder under "model".

The decoder's reconstruction is exact; the recipe's loss normalises its targets in windows of 47 pixels, ours does not.
"""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinV2Config

from ..keymap import Rule, convert
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin_v2
from .simmim_swin import with_decoder


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = Signature(
    has=("encoder.mask_token", "encoder.layers.0.blocks.0.attn.logit_scale", "decoder.0.weight"),
    lacks=("encoder.layers.0.blocks.0.attn.rpe_mlp.0.weight",),
)
HOLDS = microsoft_swin_v2.HOLDS
check = microsoft_swin_v2.check


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as this publisher's class does; windows come from the saved coordinates."""
    return read_config(tensors, hints, rules(None))


def read_config(tensors: Tensors, hints: Mapping[str, Any], rules: list[Rule]) -> HfSwinV2Config:
    """Returns the config for one of the two names of the bias network."""
    found = microsoft_swin_v2.coordinates(tensors, "encoder." + microsoft_swin_v2.TABLE)
    return swin_config(convert(tensors, rules), hints, small_input="square", **found)


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table: Microsoft's own under `encoder.`, the mask token and the decoder."""
    return with_decoder(microsoft_swin_v2.rules(config), microsoft_swin_v2.BODY)


def buffers(config: HfSwinV2Config) -> dict:
    """Returns what this publisher saves and geometry decides."""
    return {f"encoder.{key}": tensor for key, tensor in microsoft_swin_v2.buffers(config).items()}
