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
"""Swin of transformers (Apache-2.0) in the layout of its files, which is this package's own."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from hf_swin import HfSwinConfig

from .. import stock
from ..keymap import Rule
from ..limits import one_window
from ..sizes import swin_config
from . import Signature, Tensors


FAMILY = "hf_swin"
FILE, CONTAINER = "model.safetensors", ""
STOCK, BODY = "Swin", "swin."
HOLDS: dict[str, Any] = {"mask_padding": False}
LAYER = "encoder.layers.{s}."
BLOCK = LAYER + "blocks.{b}."
# Names of the parts of a block on disk and, since transformers 5, in memory.
LEGACY = {
    "attention.self.query.{p}": "attention.self.query.{p}",
    "attention.self.key.{p}": "attention.self.key.{p}",
    "attention.self.value.{p}": "attention.self.value.{p}",
    "attention.self.relative_position_bias_table": "attention.self.relative_position_bias_table",
    "attention.output.dense.{p}": "attention.output.dense.{p}",
    "intermediate.dense.{p}": "intermediate.dense.{p}",
    "output.dense.{p}": "output.dense.{p}",
}
RUNTIME = dict(
    zip(
        (
            "attention.q_proj.{p}",
            "attention.k_proj.{p}",
            "attention.v_proj.{p}",
            "attention.relative_position_bias.relative_position_bias_table",
            "attention.o_proj.{p}",
            "mlp.fc1.{p}",
            "mlp.fc2.{p}",
        ),
        LEGACY,
        strict=True,
    )
)


def signature(body: str, key: str) -> Signature:
    """Returns what tells a layout by a key of its first block, with the prefix of heads or without."""
    first = BLOCK.format(s=0, b=0) + key.format(p="weight")
    return Signature(has=(), shapes=lambda tensors: first in tensors or body + first in tensors)


SIGNATURE = signature(BODY, "attention.self.relative_position_bias_table")


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfSwinConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, LEGACY)


def read_config(tensors: Tensors, hints: Mapping[str, Any], names: dict[str, str]) -> HfSwinConfig:
    """Returns the config of one of the two layouts; stock backbones always partition and shift."""
    numerics = {**HfSwinConfig.stock_defaults["swin"]}
    if any(key.startswith("hidden_states_norms.") for key in tensors):
        numerics["always_partition"] = True
    return stock.read_config(
        HfSwinConfig, tensors, hints, STOCK, BODY, partial(table, names, BODY), partial(swin_config, **numerics)
    )


def rules(config: HfSwinConfig | None) -> list[Rule]:
    """Returns the table."""
    body = stock.prefix_of(config, BODY)
    return table(LEGACY, BODY, body, {BODY if is_backbone(config) else body})


def is_backbone(config: HfSwinConfig) -> bool:
    """Returns whether the stock class of a config is a backbone, whose last norm alone keeps the prefix."""
    return (config.architectures or [""])[0].endswith("Backbone")


def table(names: dict[str, str], ours: str, body: str, norms: Iterable[str] | None = None) -> list[Rule]:
    """Returns the table for the names of a block.

    `ours` is the prefix of this package, `body` that of the file, `norms` that of its last norm, if it is known.
    """
    same = (
        "embeddings.patch_embeddings.projection.{p}",
        "embeddings.norm.{p}",
        "embeddings.position_embeddings",
        "embeddings.mask_token",
        LAYER + "downsample.norm.{p}",
        LAYER + "downsample.reduction.weight",
        BLOCK + "layernorm_before.{p}",
        BLOCK + "layernorm_after.{p}",
    )
    heads = ("classifier.{p}", "decoder.0.{p}", "hidden_states_norms.stage{s}.{p}", "hidden_states_norms.stem.{p}")
    return [
        *(Rule(body + key, ours + key) for key in same),
        *(Rule(body + BLOCK + theirs, ours + BLOCK + key) for theirs, key in names.items()),
        *(Rule(norm + "layernorm.{p}", ours + "layernorm.{p}") for norm in norms or {body, ours}),
        *(Rule(key, key) for key in heads),
        Rule(body + BLOCK + "attention.self.relative_position_index"),
    ]


def check(config: HfSwinConfig) -> None:
    """Raises ValueError for windows that the stock class has no place for, or would partition otherwise."""
    one_window(config)
    if config.always_partition != is_backbone(config):
        raise ValueError(f"it always partitions in backbones alone and this model has {config.always_partition=}")


def stock_config(config: HfSwinConfig, tensors: Tensors) -> Any:
    """Returns the stock config of a model with these tensors, under stock names."""
    return stock.stock_config(config, "SwinConfig", window_size=one_window(config))
