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
"""ViT of timm (Apache-2.0) whose class token has a position: AugReg, DeiT, DINO, DINOv2, MAE encoder."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule, convert
from ..operations import RENAME, Operation, split
from ..sizes import VIT_LAYER, vit_config
from . import Signature, Tensors


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu",  # Google's weights too, which lose by it; `--hint hidden_act=gelu` takes that upon itself
    "layer_norm_eps": 1e-6,
    "position_embedding_type": "learned",
    "pooling": ("class", "mean"),
    "pooler": ("none", "model"),
    "num_register_tokens": 0,
}


def class_has_position(tensors: Tensors) -> bool:
    """Returns whether every token before the patches has a row in the table: a square is one of the patches alone."""
    rows = tensors["pos_embed"].shape[1]
    return "cls_token" not in tensors or round(rows**0.5) ** 2 != rows


SIGNATURE = Signature(
    has=("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    lacks=("mask_token", "reg_token", "register_tokens", "blocks.0.gamma_1"),
    container="",
    shapes=class_has_position,
)


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as timm's class does."""
    return read_config(tensors, hints, rules(None), position_resizing="bicubic_antialias")


def read_config(tensors: Tensors, hints: Mapping[str, Any], rules: list[Rule], **numerics: Any) -> HfViTConfig:
    """Returns the config of timm's names; `fc_norm` is a norm after the mean of the patches."""
    if "fc_norm.weight" in tensors:
        numerics = {"pooling": "mean", "norm_after_pooling": True, "apply_layernorm": False, **numerics}
    return vit_config(convert(tensors, rules), hints, **numerics)


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *ends(RENAME),
        *norms(config),
        *blocks(),
        Rule("blocks.{i}.ls1.gamma", VIT_LAYER + "layer_scale1.lambda1"),
        Rule("blocks.{i}.ls2.gamma", VIT_LAYER + "layer_scale2.lambda1"),
    ]


def ends(positions: Operation) -> list[Rule]:
    """Returns what comes before and after the blocks."""
    embeddings = "vit.embeddings."
    tokens = ("cls_token", "pos_embed"), (embeddings + "cls_token", embeddings + "position_embeddings")
    apart = [Rule(*pair) for pair in zip(*tokens, strict=True)]
    return [
        Rule("patch_embed.proj.{p}", embeddings + "patch_embeddings.projection.{p}"),
        *(apart if positions == RENAME else [Rule(*tokens, positions)]),
        Rule("dist_token", embeddings + "distillation_token"),
        Rule("head.{p}", "classifier.{p}"),
        Rule("head_dist.{p}", "distillation_classifier.{p}"),
    ]


def norms(config: HfViTConfig | None) -> list[Rule]:
    """Returns the last norm; both of its names where the config is not known yet."""
    names = {None: ("norm", "fc_norm"), False: ("norm",), True: ("fc_norm",)}
    after = None if config is None else config.norm_after_pooling
    return [Rule(f"{name}.{{p}}", "vit.layernorm.{p}") for name in names[after]]


def blocks() -> list[Rule]:
    """Returns what is in a block."""
    return [
        *attention(),
        Rule("blocks.{i}.mlp.fc1.{p}", VIT_LAYER + "intermediate.dense.{p}"),
        Rule("blocks.{i}.mlp.fc2.{p}", VIT_LAYER + "output.dense.{p}"),
    ]


def attention() -> list[Rule]:
    """Returns what is in a block, without its MLP."""
    return [
        Rule("blocks.{i}.norm1.{p}", VIT_LAYER + "layernorm_before.{p}"),
        Rule(
            "blocks.{i}.attn.qkv.{p}",
            tuple(f"{VIT_LAYER}attention.attention.{name}.{{p}}" for name in ("query", "key", "value")),
            split(3),
        ),
        Rule("blocks.{i}.attn.proj.{p}", VIT_LAYER + "attention.output.dense.{p}"),
        Rule("blocks.{i}.norm2.{p}", VIT_LAYER + "layernorm_after.{p}"),
    ]


def plain_or_gated(config: HfViTConfig | None, plain: list[Rule], gated: list[Rule]) -> list[Rule]:
    """Returns the rules of the MLP that a config has, and both where it is not known yet."""
    if config is None:
        return plain + gated
    return gated if config.use_swiglu_ffn else plain
