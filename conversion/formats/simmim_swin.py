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
"""Swin pre-trained by SimMIM in microsoft/Swin-Transformer (MIT): encoder and decoder under "model"."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinConfig

from ..keymap import Rule, convert
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", "model"
SIGNATURE = Signature(
    has=("encoder.mask_token", "encoder.layers.0.downsample.norm.weight", "decoder.0.weight"),
    lacks=("encoder.layers.0.blocks.0.attn.logit_scale",),
)
HOLDS = microsoft_swin.HOLDS
check = microsoft_swin.check


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as this publisher's class does."""
    return swin_config(convert(tensors, rules(None)), hints, small_input="square", bias_resizing="geometric_cubic")


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table: Microsoft's own under `encoder.`, the mask token and the decoder."""
    return with_decoder(microsoft_swin.rules(config), microsoft_swin.BODY)


def with_decoder(encoder: list[Rule], body: str) -> list[Rule]:
    """Returns an encoder's rules under `encoder.`, the mask token and the decoder."""
    return [
        *under("encoder.", encoder),
        Rule("encoder.mask_token", body + "embeddings.mask_token"),
        Rule("decoder.0.{p}", "decoder.0.{p}"),
    ]


def under(prefix: str, rules: list[Rule]) -> list[Rule]:
    """Returns the rules for the same keys with a prefix; heads of a classifier have no place there."""
    prefixed = []
    for rule in rules:
        sources = (rule.source,) if isinstance(rule.source, str) else rule.source
        if not any(source.startswith("head.") for source in sources):
            prefixed.append(Rule(tuple(prefix + source for source in sources), rule.target, rule.operation))
    return prefixed


def buffers(config: HfSwinConfig) -> dict:
    """Returns what this publisher saves and geometry decides."""
    return {f"encoder.{key}": tensor for key, tensor in microsoft_swin.buffers(config).items()}
