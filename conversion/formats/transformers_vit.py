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
"""ViT of transformers (Apache-2.0) in the layout of its files; of a MAE the decoder is left out."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hf_swin import HfViTConfig

from .. import stock
from ..keymap import Rule
from ..limits import PAPER_VIT
from ..sizes import VIT_LAYER, vit_config
from . import Signature, Tensors


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
STOCK, BODY = "ViT", "vit."
HOLDS: dict[str, Any] = {**PAPER_VIT, "pooler": ("none", "model")}
# Names of the parts of a layer on disk and, since transformers 5, in memory.
LEGACY = {
    "layer": "encoder.layer.{i}.",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "output": "attention.output.dense",
    "first": "intermediate.dense",
    "second": "output.dense",
}
RUNTIME = {
    "layer": "layers.{i}.",
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "output": "attention.o_proj",
    "first": "mlp.fc1",
    "second": "mlp.fc2",
}


def signature(names: dict[str, str], lacks: tuple[str, ...] = ("embeddings.distillation_token",)) -> Signature:
    """Returns what tells a layout, with the prefix of heads or without."""
    first = names["layer"].format(i=0) + names["first"] + ".weight"

    def shapes(tensors: Tensors) -> bool:
        bare = {key.removeprefix(BODY) for key in tensors}
        return {"embeddings.cls_token", first} <= bare and not bare & set(lacks)

    return Signature(has=(), shapes=shapes)


SIGNATURE = signature(LEGACY)


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, LEGACY)


def read_config(tensors: Tensors, hints: Mapping[str, Any], names: dict[str, str]) -> HfViTConfig:
    """Returns the config of one of the two layouts; without a config.json the stock class has an epsilon of 1e-12."""
    sizes = partial(vit_config, layer_norm_eps=HfViTConfig.stock_defaults["vit"]["layer_norm_eps"])
    config = stock.read_config(HfViTConfig, tensors, hints, STOCK, BODY, partial(table, names), sizes)
    return without_pooler(config, tensors)


def without_pooler(config: HfViTConfig, tensors: Tensors) -> HfViTConfig:
    """Returns the config of a body that was saved without its pooler, as DINO's, which no config.json says."""
    if not any(key.endswith("pooler.dense.weight") for key in tensors):
        config.pooler = "none"
    return config


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return table(LEGACY, stock.prefix_of(config, BODY))


def table(names: dict[str, str], body: str) -> list[Rule]:
    """Returns the table for one of the two layouts."""
    return [
        *ends(body),
        *layers(names, body),
        Rule("decoder.mask_token"),
        Rule("decoder.decoder_{rest}"),
    ]


def ends(body: str) -> list[Rule]:
    """Returns what comes before and after the layers."""
    return [
        Rule(body + "embeddings.patch_embeddings.projection.{p}", "vit.embeddings.patch_embeddings.projection.{p}"),
        Rule(body + "embeddings.cls_token", "vit.embeddings.cls_token"),
        Rule(body + "embeddings.position_embeddings", "vit.embeddings.position_embeddings"),
        Rule(body + "embeddings.mask_token", "vit.embeddings.mask_token"),
        Rule(body + "layernorm.{p}", "vit.layernorm.{p}"),
        Rule(body + "pooler.dense.{p}", "vit.pooler.dense.{p}"),
        Rule("classifier.{p}", "classifier.{p}"),
        Rule("decoder.0.{p}", "decoder.0.{p}"),
    ]


def layers(names: dict[str, str], body: str) -> list[Rule]:
    """Returns what is in a layer."""
    layer = body + names["layer"]
    return [
        Rule(layer + "layernorm_before.{p}", VIT_LAYER + "layernorm_before.{p}"),
        Rule(layer + "layernorm_after.{p}", VIT_LAYER + "layernorm_after.{p}"),
        *(Rule(f"{layer}{names[part]}.{{p}}", f"{VIT_LAYER}{LEGACY[part]}.{{p}}") for part in names if part != "layer"),
    ]


def stock_config(config: HfViTConfig, tensors: Tensors) -> Any:
    """Returns the stock config of a model with these tensors, under stock names."""
    return stock.stock_config(config, "ViTConfig")
