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
"""ViT as google-research/vision_transformer released it (Apache-2.0): `.npz`, kernels (in, heads, channels)."""

from collections.abc import Mapping
from typing import Any

from hf_swin import HfViTConfig

from ..keymap import Rule, convert
from ..operations import heads_flat, heads_in, heads_out, transpose
from ..sizes import VIT_LAYER, vit_config
from . import Signature, Tensors


FAMILY = "hf_vit"
FILE, CONTAINER = "model.npz", ""
LAYER = "Transformer/encoderblock_{i}/"
FIRST = LAYER.format(i=0)
SIGNATURE = Signature(
    has=("embedding/kernel", FIRST + "MultiHeadDotProductAttention_1/query/kernel"), lacks=("pos_embedding",)
)
# flax.linen.gelu approximates by tanh unless told otherwise, and Google trained with it.
HOLDS: dict[str, Any] = {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "position_embedding_type": "learned",
    "pooling": ("class", "mean"),
    "norm_after_pooling": False,
    "use_distillation_token": False,
    "num_register_tokens": 0,
    "layerscale_value": None,
    "use_swiglu_ffn": False,
}
NUMBERS = {"attention": "MultiHeadDotProductAttention_1", "second_norm": "LayerNorm_2", "mlp": "MlpBlock_3"}


def config(tensors: Tensors, hints: Mapping[str, Any]) -> HfViTConfig:
    """Returns the config that computes as Google's class does."""
    return read_config(tensors, hints, FIRST + NUMBERS["attention"], rules(None))


def read_config(tensors: Tensors, hints: Mapping[str, Any], attention: str, rules: list[Rule]) -> HfViTConfig:
    """Returns the config; heads are an axis of the query kernel, (…, in, heads, channels)."""
    numerics = {
        "hidden_act": "gelu_pytorch_tanh",
        "position_resizing": "bilinear_align_corners",
        "num_attention_heads": tensors[attention + "/query/kernel"].shape[-2],
    }
    return vit_config(convert(tensors, rules), hints, **numerics)


def rules(config: HfViTConfig | None) -> list[Rule]:
    """Returns the table."""
    return [
        *ends(),
        Rule("Transformer/posembed_input/pos_embedding", "vit.embeddings.position_embeddings"),
        Rule("cls", "vit.embeddings.cls_token"),
        *blocks(LAYER, config, **NUMBERS),
    ]


def ends() -> list[Rule]:
    """Returns what comes before and after the blocks."""
    return [
        Rule("embedding/kernel", "vit.embeddings.patch_embeddings.projection.weight", transpose(3, 2, 0, 1)),
        Rule("embedding/bias", "vit.embeddings.patch_embeddings.projection.bias"),
        *norm("Transformer/encoder_norm", "vit.layernorm"),
        *linear("pre_logits", "vit.pooler.dense"),
        *linear("head", "classifier"),
    ]


def norm(source: str, target: str) -> list[Rule]:
    """Returns the two tensors of a norm."""
    return [Rule(source + "/scale", target + ".weight"), Rule(source + "/bias", target + ".bias")]


def linear(source: str, target: str) -> list[Rule]:
    """Returns the two tensors of a linear layer."""
    return [Rule(source + "/kernel", target + ".weight", transpose(1, 0)), Rule(source + "/bias", target + ".bias")]


def blocks(layer: str, config: HfViTConfig | None, attention: str, second_norm: str, mlp: str) -> list[Rule]:
    """Returns what is in a block, whose parts linen numbers in the order in which they were made."""
    heads = config.num_attention_heads if config else 1  # only the way back to Google needs them
    table = [*norm(layer + "LayerNorm_0", VIT_LAYER + "layernorm_before")]
    for name in ("query", "key", "value"):
        ours = f"{VIT_LAYER}attention.attention.{name}"
        table += [
            Rule(f"{layer}{attention}/{name}/kernel", ours + ".weight", heads_out(heads)),
            Rule(f"{layer}{attention}/{name}/bias", ours + ".bias", heads_flat(heads)),
        ]
    return [
        *table,
        Rule(f"{layer}{attention}/out/kernel", VIT_LAYER + "attention.output.dense.weight", heads_in(heads)),
        Rule(f"{layer}{attention}/out/bias", VIT_LAYER + "attention.output.dense.bias"),
        *norm(layer + second_norm, VIT_LAYER + "layernorm_after"),
        *linear(f"{layer}{mlp}/Dense_0", VIT_LAYER + "intermediate.dense"),
        *linear(f"{layer}{mlp}/Dense_1", VIT_LAYER + "output.dense"),
    ]
