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
"""Distilled DeiT of transformers (Apache-2.0) in the layout of its files; a plain DeiT is a ViT there."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hf_swin import HfViTConfig

from .. import stock
from ..keymap import Rule
from ..sizes import vit_config
from . import Signature, Tensors, transformers_vit
from .transformers_vit import LEGACY, ends, layers, without_pooler


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
STOCK, BODY = "DeiT", "deit."
HOLDS: dict[str, Any] = {**transformers_vit.HOLDS, "use_distillation_token": True}


def signature(names: dict[str, str]) -> Signature:
    """Returns what tells a layout, with the prefix of heads or without."""
    first = names["layer"].format(i=0) + names["query"] + ".weight"
    return Signature(
        has=(),
        shapes=lambda tensors: {"embeddings.distillation_token", first} <= {key.removeprefix(BODY) for key in tensors},
    )


SIGNATURE = signature(LEGACY)


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, LEGACY)


def read_config(tensors: Tensors, hints: Mapping[str, Any], names: dict[str, str]) -> HfViTConfig:
    """Returns the config of one of the two layouts; the class says whether the distilled head has a say."""
    sizes = partial(vit_config, layer_norm_eps=HfViTConfig.stock_defaults["deit"]["layer_norm_eps"])
    teacher = "distillation_classifier.weight" in tensors
    config = stock.read_config(HfViTConfig, tensors, hints, STOCK, BODY, partial(table, names, teacher=teacher), sizes)
    config.use_distillation_head = teacher
    if teacher:
        config.architectures = ["DeiTForImageClassificationWithTeacher"]
    return without_pooler(config, tensors)


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return table(LEGACY, stock.prefix_of(config, BODY), config.use_distillation_head)


def table(names: dict[str, str], body: str, teacher: bool) -> list[Rule]:
    """Returns the table for one of the two layouts; with a teacher's head classifiers have names of their own."""
    around = [rule for rule in ends(body) if not (teacher and rule.target == "classifier.{p}")]
    named = [Rule("cls_classifier.{p}", "classifier.{p}")] if teacher else []
    return [
        *around,
        *named,
        Rule(body + "embeddings.distillation_token", "vit.embeddings.distillation_token"),
        Rule("distillation_classifier.{p}", "distillation_classifier.{p}"),
        *layers(names, body),
    ]


def architecture(config: HfViTConfig, head: str) -> str:
    """Returns the stock class of a model."""
    return f"{STOCK}{head}WithTeacher" if config.use_distillation_head and head != "Model" else STOCK + head


def stock_config(config: HfViTConfig, tensors: Tensors) -> Any:
    """Returns the stock config of a model with these tensors, under stock names."""
    return stock.stock_config(config, "DeiTConfig")
