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
"""Swin classifiers of OpenMMLab (mmpretrain, Apache-2.0): merged by nn.Unfold, so merged features are reordered."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfSwinConfig

from ..keymap import Rule, convert
from ..operations import UNFOLDED
from ..sizes import swin_config
from . import Signature, Tensors, microsoft_swin
from .microsoft_swin import BODY, STAGE, blocks


FAMILY = "hf_swin"
FILE, CONTAINER = "model.pth", "state_dict"
SIGNATURE = Signature(
    has=("backbone.patch_embed.projection.weight", "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"),
    lacks=("backbone.stages.0.blocks.0.attn.w_msa.logit_scale", "backbone.norm2.weight", "backbone.norm.weight"),
)
HOLDS = microsoft_swin.HOLDS
BLOCKS = "backbone.stages.{s}.blocks.{b}."
MERGING = "backbone.stages.{s}.downsample."


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as mmpretrain's class does with pad_small_map=False."""
    return swin_config(convert(tensors, rules(None)), hints, small_input="square")


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *body(),
        Rule("backbone.norm3.{p}", BODY + "layernorm.{p}"),
        Rule("head.fc.{p}", "classifier.{p}"),
    ]


def body() -> list[Rule]:
    """Returns what classifiers and detectors share."""
    return [
        *stem(BODY),
        *blocks(BLOCKS, "ffn.layers.0.0", "ffn.layers.1", "attn.w_msa."),
        Rule(BLOCKS + "attn.w_msa.relative_position_index"),
        Rule(BLOCKS + "attn.attn_mask"),  # saved until 2022
        Rule(MERGING + "norm.{p}", BODY + STAGE + "downsample.norm.{p}", UNFOLDED),
        Rule(MERGING + "reduction.weight", BODY + STAGE + "downsample.reduction.weight", UNFOLDED),
    ]


def stem(body: str) -> list[Rule]:
    """Returns what comes before the stages."""
    return [
        Rule("backbone.patch_embed.projection.{p}", body + "embeddings.patch_embeddings.projection.{p}"),
        Rule("backbone.patch_embed.norm.{p}", body + "embeddings.norm.{p}"),
        Rule("backbone.absolute_pos_embed", body + "embeddings.position_embeddings"),
    ]


def buffers(config: HfSwinConfig) -> dict:
    """Returns what this publisher saves and geometry decides."""
    made = microsoft_swin.buffers(config)
    return {
        f"backbone.{key.replace('layers.', 'stages.', 1).replace('.attn.', '.attn.w_msa.')}": tensor
        for key, tensor in made.items()
        if not key.endswith("attn_mask")
    }


def check(config: HfSwinConfig) -> None:
    """Raises ValueError for windows that this publisher would choose otherwise, and for other depths."""
    microsoft_swin.check(config)
    four_stages(config)


def four_stages(config: HfSwinConfig) -> None:
    """Raises ValueError for another number of stages: the last norm is called after the fourth."""
    if len(config.depths) != 4:
        raise ValueError(f"its last norm is that of four stages and this model has {len(config.depths)}")
