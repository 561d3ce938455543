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
"""ViT as the current code of google-research/vision_transformer saves it (Apache-2.0): parts numbered anew."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule
from . import Signature, Tensors, google_vit


FAMILY = "hf_vit"
FILE, CONTAINER = "model.npz", ""
SIGNATURE = Signature(
    has=("embedding/kernel", google_vit.FIRST + "MultiHeadDotProductAttention_0/query/kernel"), lacks=("pos_embedding",)
)
HOLDS = google_vit.HOLDS
NUMBERS = {"attention": "MultiHeadDotProductAttention_0", "second_norm": "LayerNorm_1", "mlp": "MlpBlock_0"}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as Google's class does."""
    return google_vit.read_config(tensors, hints, google_vit.FIRST + NUMBERS["attention"], rules(None))


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *google_vit.ends(),
        Rule("Transformer/posembed_input/pos_embedding", "vit.embeddings.position_embeddings"),
        Rule("cls", "vit.embeddings.cls_token"),
        *google_vit.blocks(google_vit.LAYER, config, **NUMBERS),
    ]
