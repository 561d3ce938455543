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
"""Swin v2 pre-trained by SimMIM as released (hub `zdaxie/SimMIM`, MIT): the bias network is still called `rpe_mlp`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_swin import HfSwinV2Config

from ..keymap import Rule
from . import Signature, Tensors, simmim_swin_v2


FAMILY = "hf_swin_v2"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = Signature(has=(*simmim_swin_v2.SIGNATURE.has, *simmim_swin_v2.SIGNATURE.lacks))
HOLDS = simmim_swin_v2.HOLDS
check = simmim_swin_v2.check
buffers = simmim_swin_v2.buffers


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinV2Config:
    """Returns the config that computes as this publisher's class does; windows come from the saved coordinates."""
    return simmim_swin_v2.read_config(tensors, hints, rules(None))


def rules(config: HfSwinV2Config | None) -> list[Rule]:
    """Returns the table."""
    return [replace(rule, source=_old(rule.source)) for rule in simmim_swin_v2.rules(config)]


def _old(sources: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(sources, str):
        return sources.replace("cpb_mlp", "rpe_mlp")
    return tuple(source.replace("cpb_mlp", "rpe_mlp") for source in sources)
