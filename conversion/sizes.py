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
"""The numbers of a model, read from the shapes of its tensors under this package's names on disk."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from hf_swin import HfSwinConfig, HfSwinV2Config, HfViTConfig
from hf_swin.configuration_shared import pair
from hf_swin.configuration_vit import cover
from hf_swin.errors import UserError

from .keymap import template


Tensors = Mapping[str, torch.Tensor]
# Width of every published ViT -> its heads, which no shape tells.
VIT_HEADS = {192: 3, 320: 5, 384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}
VIT_LAYER = "vit.encoder.layer.{i}."


def head_of(tensors: Tensors) -> str:
    """Returns how the class that holds these tensors ends: what is there beside the body says it."""
    if any(key.startswith("hidden_states_norms.") for key in tensors):
        return "Backbone"
    if "classifier.weight" in tensors:
        return "ForImageClassification"
    return "ForMaskedImageModeling" if "decoder.0.weight" in tensors else "Model"


def vit_config(tensors: Tensors, hints: Mapping[str, Any], **numerics: Any) -> HfViTConfig:
    """Returns the config of a ViT; `numerics` are what its publisher computes by, `hints` what the user knows better.

    Raises UserError for numbers that the tensors do not tell and nobody has given.
    """
    width, channels, *patch = _patches(tensors, "vit.")
    layer = VIT_LAYER.format(i=0)
    inner = tensors[layer + "output.dense.weight"].shape[1]
    numbers = {
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "num_channels": channels,
        "hidden_size": width,
        "num_hidden_layers": _count(tensors, VIT_LAYER + "layernorm_before.weight", "i"),
        "intermediate_size": inner,
        "use_swiglu_ffn": tensors[layer + "intermediate.dense.weight"].shape[0] == 2 * inner,
        "qkv_bias": layer + "attention.attention.query.bias" in tensors,
        "use_class_token": "vit.embeddings.cls_token" in tensors,
        "use_distillation_token": "vit.embeddings.distillation_token" in tensors,
        "use_distillation_head": "distillation_classifier.weight" in tensors,
        "num_register_tokens": _rows(tensors, "vit.embeddings.register_tokens"),
        "layerscale_value": 1.0 if layer + "layer_scale1.lambda1" in tensors else None,
        **_vit_head(tensors, width),
    }
    numbers = {**numbers, **numerics, **hints}
    if "num_attention_heads" not in numbers:
        if width not in VIT_HEADS:
            raise UserError(
                f"no published ViT is {width} wide, so its number of heads is unknown: add --hint num_attention_heads=N"
            )
        numbers["num_attention_heads"] = VIT_HEADS[width]
    before = numbers["use_class_token"] + numbers["use_distillation_token"]
    if "image_size" not in numbers or not _fits(tensors, numbers["image_size"], before, patch):
        numbers["image_size"] = _image_size(tensors, before, patch)
    return HfViTConfig(**numbers)


def _fits(tensors: Tensors, image_size: int | list[int], before: int, patch: list[int]) -> bool:
    table = tensors.get("vit.embeddings.position_embeddings")
    return table is None or table.shape[1] - before == math.prod(cover(pair(image_size), tuple(patch)))


def _vit_head(tensors: Tensors, width: int) -> dict[str, Any]:
    numbers = {}
    if "vit.pooler.dense.weight" in tensors:
        numbers["pooler"] = "always" if "classifier.weight" in tensors else "model"
        numbers["pooler_output_size"] = tensors["vit.pooler.dense.weight"].shape[0]
    if "vit.embeddings.cls_token" not in tensors:
        numbers["pooling"] = "mean"
    if "classifier.weight" in tensors:
        numbers["num_labels"], features = tensors["classifier.weight"].shape
        if features == 2 * width:
            numbers["pooling"] = "class_and_mean"
    return numbers


def _image_size(tensors: Tensors, before: int, patch: list[int]) -> int | list[int]:
    table = "vit.embeddings.position_embeddings"
    if table not in tensors:
        raise UserError("the file has no table of positions that would tell its image size: add --hint image_size=N")
    side = math.isqrt(tensors[table].shape[1] - before)
    if side * side != tensors[table].shape[1] - before:
        raise UserError(
            f"{tensors[table].shape[1]} positions are no square of patches: add --hint image_size=[HEIGHT,WIDTH]"
        )
    return side * patch[0] if patch[0] == patch[1] else [side * patch[0], side * patch[1]]


def swin_config(
    tensors: Tensors, hints: Mapping[str, Any], windows: list[list[int]] | None = None, **numerics: Any
) -> HfSwinConfig:
    """Returns the config of a Swin, or of a Swin v2, whose `windows` the caller found, for its tensors do not tell.

    Raises UserError for numbers that the tensors do not tell and nobody has given.
    """
    second = any(key.startswith("swinv2.") for key in tensors)
    body = "swinv2." if second else "swin."
    stage = body + "encoder.layers.{s}.blocks."
    width, channels, *patch = _patches(tensors, body)
    stages = _count(tensors, stage + "0.layernorm_before.weight", "s")
    first = stage.format(s=0) + "0."
    heads = "attention.self." + ("logit_scale" if second else "relative_position_bias_table")
    numbers = {
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "num_channels": channels,
        "embed_dim": width,
        "depths": [_count(tensors, f"{stage.format(s=s)}{{b}}.layernorm_before.weight", "b") for s in range(stages)],
        "num_heads": [tensors[f"{stage.format(s=s)}0.{heads}"].shape[0 if second else 1] for s in range(stages)],
        "mlp_ratio": tensors[first + "intermediate.dense.weight"].shape[0] / width,
        "qkv_bias": first + "attention.self.query.bias" in tensors,
        "use_absolute_embeddings": body + "embeddings.position_embeddings" in tensors,
    }
    if "classifier.weight" in tensors:
        numbers["num_labels"] = tensors["classifier.weight"].shape[0]
    if second:
        numbers["bias_hidden_size"] = tensors[first + "attention.self.continuous_position_bias_mlp.0.weight"].shape[0]
    else:
        windows = windows or _windows_of_tables(tensors, stage, stages)
    stride = [side * 2 ** (stages - 1) for side in patch]
    return (HfSwinV2Config if second else HfSwinConfig)(
        **{**numbers, **numerics, **_windows(windows, stride, {**numerics, **hints})}
    )


def _windows(windows: list[list[int]] | None, stride: list[int], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The window of each stage and the image: a published model's last window is its whole last grid."""
    if windows is None:
        missing = [name for name in ("image_size", "window_size") if name not in hints]
        if missing:
            raise UserError(
                f"the weights do not tell {' and '.join(missing)}: name a published model of this architecture with "
                f"--checkpoint, or add {' '.join(f'--hint {name}=N' for name in missing)}, and "
                "pretrained_window_sizes=[…] if it was trained in other windows"
            )
        return dict(hints)
    last = [side * pixels for side, pixels in zip(windows[-1], stride, strict=True)]
    one = all(window == windows[0] and window[0] == window[1] for window in windows)
    per_stage = windows[0][0] if one else [w[0] if w[0] == w[1] else w for w in windows]
    image_size = last[0] if last[0] == last[1] else last
    return {"image_size": image_size, **hints, "window_size": per_stage}


def _windows_of_tables(tensors: Tensors, stage: str, stages: int) -> list[list[int]] | None:
    """The window of each stage by its bias table of (2h-1)(2w-1) rows; None if one is no square."""
    rows = [
        tensors[f"{stage.format(s=s)}0.attention.self.relative_position_bias_table"].shape[0] for s in range(stages)
    ]
    if any(math.isqrt(count) ** 2 != count for count in rows):
        return None
    return [[(math.isqrt(count) + 1) // 2] * 2 for count in rows]


def _patches(tensors: Tensors, body: str) -> tuple[int, ...]:
    return tuple(tensors[body + "embeddings.patch_embeddings.projection.weight"].shape)


def _rows(tensors: Tensors, key: str) -> int:
    return tensors[key].shape[1] if key in tensors else 0


def _count(tensors: Tensors, text: str, name: str) -> int:
    found = [values[name] for key in tensors if (values := template(text).match(key)) is not None]
    return max(found, default=-1) + 1
