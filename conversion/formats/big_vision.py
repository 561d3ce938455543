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
"""ViT as google-research/big_vision saves it (Apache-2.0): `.npz`, positions added before the class token."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule, convert
from ..operations import CLASS_WITHOUT_POSITION
from ..sizes import vit_config
from . import Signature, Tensors, google_vit, google_vit_linen


FAMILY = "hf_vit"
FILE, CONTAINER = "model.npz", ""
ROOT = "params/"
LAYER = ROOT + google_vit.LAYER
QUERY = google_vit_linen.NUMBERS["attention"] + "/query/kernel"
SIGNATURE = Signature(has=(ROOT + "embedding/kernel", LAYER.format(i=0) + QUERY))
HOLDS: dict[str, Any] = {**google_vit.HOLDS, "position_embedding_type": ("learned", "sinusoidal_2d")}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as big_vision's class does."""
    return read_config(tensors, hints, LAYER)


def read_config(tensors: Tensors, hints: Mapping[str, Any], layer: str) -> HfViTConfig:
    """Returns the config; a file without positions has those of MoCo v3, and one without class token its mean.

    Raises ValueError for a head that pools by attention.
    """
    if ROOT + "MAPHead_0/probe" in tensors:
        raise ValueError("its MAPHead pools by attention, and this package's ViT by class token or mean")
    positions = "learned" if ROOT + "pos_embedding" in tensors else "sinusoidal_2d"
    numerics = {
        "hidden_act": "gelu_pytorch_tanh",
        "position_embedding_type": positions,
        "position_resizing": "bilinear_align_corners",
        "num_attention_heads": tensors[layer.format(i=0) + QUERY].shape[-2],
    }
    positioned = positions == "learned" and ROOT + "cls" in tensors
    return vit_config(convert(tensors, table(layer, None, positioned)), hints, **numerics)


def rules(config: HfViTConfig) -> list[Rule]:
    """Returns the table."""
    return table(LAYER, config, config.use_class_token and config.position_embedding_type == "learned")


def table(layer: str, config: HfViTConfig | None, class_and_positions: bool) -> list[Rule]:
    """Returns the table for the name of a layer; with both of them, the class token is given a zero position."""
    tokens = (ROOT + "cls", ROOT + "pos_embedding"), ("vit.embeddings.cls_token", "vit.embeddings.position_embeddings")
    apart = [Rule(*pair) for pair in zip(*tokens, strict=True)]
    return [
        *(replace(rule, source=ROOT + rule.source) for rule in google_vit.ends()),
        *([Rule(*tokens, CLASS_WITHOUT_POSITION)] if class_and_positions else apart),
        *google_vit.blocks(layer, config, **google_vit_linen.NUMBERS),
    ]
