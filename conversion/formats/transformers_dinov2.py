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
"""DINOv2 of transformers, with and without registers (Apache-2.0), in the layout of its files."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from hf_swin import HfViTConfig

from .. import stock
from ..keymap import Rule
from ..operations import reshape
from ..sizes import VIT_LAYER, vit_config
from . import Signature, Tensors
from .timm_vit import plain_or_gated
from .transformers_vit import ends


FAMILY = "hf_vit"
FILE, CONTAINER = "model.safetensors", ""
STOCK = "Dinov2"
BODIES = {False: "dinov2.", True: "dinov2_with_registers."}
HOLDS: dict[str, Any] = {
    "position_embedding_type": "learned",
    "pooling": ("class_and_mean",),
    "pooler": ("none", "model"),
    "norm_after_pooling": False,
    "use_class_token": True,
    "use_distillation_token": False,
}
ATTENTION = {
    "attention.attention.query": "attention.attention.query",
    "attention.attention.key": "attention.attention.key",
    "attention.attention.value": "attention.attention.value",
    "attention.output.dense": "attention.output.dense",
}


def signature(query: str) -> Signature:
    """Returns what tells a layout, with the prefix of heads or without."""

    def shapes(tensors: Tensors) -> bool:
        bare = {key.removeprefix(BODIES[False]).removeprefix(BODIES[True]) for key in tensors}
        return {f"encoder.layer.0.{query}.weight", "encoder.layer.0.layer_scale1.lambda1"} <= bare

    return Signature(has=(), shapes=shapes)


SIGNATURE = signature("attention.attention.query")


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as the stock class does."""
    return read_config(tensors, hints, partial(table, None))


def read_config(tensors: Tensors, hints: Mapping[str, Any], table: Any) -> HfViTConfig:
    """Returns the config of one of the two layouts."""
    registers = any(key.endswith("embeddings.register_tokens") for key in tensors)
    numbers = {"pooling": "class_and_mean"} | ({"position_resizing": "bicubic_antialias"} if registers else {})
    return stock.read_config(
        HfViTConfig,
        tensors,
        hints,
        STOCK + ("WithRegisters" if registers else ""),
        BODIES[registers],
        table,
        partial(vit_config, **numbers),
    )


def rules(config: HfViTConfig) -> list[Rule]:
    """Returns the table."""
    return table(config, stock.prefix_of(config, BODIES[config.num_register_tokens > 0]))


def table(config: HfViTConfig | None, body: str) -> list[Rule]:
    """Returns the table; the giant's weights_in is its gate, then what is gated, as ours."""
    layer = body + "encoder.layer.{i}.mlp."
    gated = [
        Rule(layer + "weights_in.{p}", VIT_LAYER + "intermediate.dense.{p}"),
        Rule(layer + "weights_out.{p}", VIT_LAYER + "output.dense.{p}"),
    ]
    return [*around(body, ATTENTION), *plain_or_gated(config, plain(body), gated)]


def plain(body: str) -> list[Rule]:
    """Returns the two layers of an MLP without a gate."""
    layer = body + "encoder.layer.{i}.mlp."
    return [
        Rule(layer + "fc1.{p}", VIT_LAYER + "intermediate.dense.{p}"),
        Rule(layer + "fc2.{p}", VIT_LAYER + "output.dense.{p}"),
    ]


def around(body: str, attention: dict[str, str]) -> list[Rule]:
    """Returns what both layouts share, and the attention under its names."""
    layer = body + "encoder.layer.{i}."
    kept = [rule for rule in ends(body) if "mask_token" not in rule.source]
    return [
        *kept,
        Rule(body + "embeddings.mask_token", "vit.embeddings.mask_token", reshape((1, -1), (1, 1, -1))),
        Rule(body + "embeddings.register_tokens", "vit.embeddings.register_tokens"),
        Rule(layer + "norm1.{p}", VIT_LAYER + "layernorm_before.{p}"),
        Rule(layer + "norm2.{p}", VIT_LAYER + "layernorm_after.{p}"),
        Rule(layer + "layer_scale1.lambda1", VIT_LAYER + "layer_scale1.lambda1"),
        Rule(layer + "layer_scale2.lambda1", VIT_LAYER + "layer_scale2.lambda1"),
        *(Rule(f"{layer}{theirs}.{{p}}", f"{VIT_LAYER}{ours}.{{p}}") for theirs, ours in attention.items()),
    ]


def architecture(config: HfViTConfig, head: str) -> str:
    """Returns the stock class of a model."""
    return f"{STOCK}{'WithRegisters' if config.num_register_tokens else ''}{head}"


def buffers(config: HfViTConfig) -> dict[str, torch.Tensor]:
    """Returns the mask token of a model that has none: the stock class with registers wants one that it never uses."""
    key = stock.prefix_of(config, BODIES[True]) + "embeddings.mask_token"
    return {key: torch.zeros(1, config.hidden_size)} if config.num_register_tokens else {}


def check(config: HfViTConfig) -> None:
    """Raises ValueError for widths that the stock class cannot compute from a ratio, and for unscaled branches."""
    ratio(config)
    if config.layerscale_value is None:
        raise ValueError("it scales its branches and this model does not")


def ratio(config: HfViTConfig) -> float:
    """Returns mlp_ratio, of which the giant takes two thirds, rounded up to a multiple of 8."""
    ratio = config.intermediate_size / config.hidden_size
    if config.use_swiglu_ffn:
        ratio = next((r for r in (4, round(1.5 * ratio)) if _gated(config, r) == config.intermediate_size), None)
    if ratio is None or ratio != int(ratio):
        raise ValueError(f"its MLP is a whole multiple of {config.hidden_size}, here it is {config.intermediate_size}")
    return int(ratio)


def _gated(config: HfViTConfig, ratio: int) -> int:
    return (int(config.hidden_size * ratio * 2 / 3) + 7) // 8 * 8


def stock_config(config: HfViTConfig, tensors: Tensors) -> Any:
    """Returns the stock config of a model with these tensors, under stock names."""
    name = "Dinov2WithRegistersConfig" if config.num_register_tokens else "Dinov2Config"
    masked = any(key.endswith("mask_token") for key in tensors)
    numbers = {} if config.num_register_tokens else {"use_mask_token": masked}
    return stock.stock_config(config, name, mlp_ratio=ratio(config), **numbers)
