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
"""Publishers' own classes, built at a config's sizes, and what their parts are called there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from hf_swin.configuration_shared import pair

from .keymap import template


VIT_PARTS = ("embeddings", "layers.{i}", "layernorm")
SWIN_PARTS = ("embeddings", "stages.{s}.blocks.{b}", "stages.{s}.merging", "layernorm")


def parts_of(family: str) -> tuple[str, ...]:
    """Returns what the parts of a family are called in this package."""
    return VIT_PARTS if family == "hf_vit" else SWIN_PARTS


@dataclass(frozen=True)
class Peer:
    """A publisher's class: how it is built from a config of this package, and its names of that family's parts."""

    build: Callable[[PreTrainedConfig], nn.Module]
    parts: tuple[str, ...]


def renamed_part(theirs: str, parts: tuple[str, ...], ours: tuple[str, ...]) -> str | None:
    """Returns what this package calls a publisher's part, or None for a part of no interest."""
    for pattern, mine in zip(parts, ours, strict=True):
        values = template(pattern).match(theirs)
        if values is not None:
            return template(mine).fill(values)
    return None


def _labels(config: PreTrainedConfig) -> int:
    return config.num_labels if (config.architectures or [""])[0].endswith("Classification") else 0


def timm_vit(config: PreTrainedConfig, **variant: Any) -> nn.Module:
    """Returns timm's ViT, of which DeiT, DINO and MAE are checkpoints."""
    import timm

    numbers: dict[str, Any] = {
        "img_size": pair(config.image_size),
        "patch_size": pair(config.patch_size),
        "in_chans": config.num_channels,
        "num_classes": _labels(config),
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size * (1 + config.use_swiglu_ffn) / config.hidden_size,
        "qkv_bias": config.qkv_bias,
        "init_values": config.layerscale_value,
        "act_layer": "gelu_tanh" if config.hidden_act == "gelu_pytorch_tanh" else None,
        **variant,
    }
    if config.use_swiglu_ffn:
        numbers |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    if config.use_distillation_token:
        return timm.models.deit.VisionTransformerDistilled(**numbers)
    pool = "avg" if config.pooling == "mean" else "token"
    return timm.models.VisionTransformer(
        **numbers,
        class_token=config.use_class_token,
        global_pool=pool if _labels(config) else "",
        fc_norm=config.norm_after_pooling,
    )


def timm_vit_no_class_position(config: PreTrainedConfig) -> nn.Module:
    """Returns timm's ViT whose class token has no position."""
    return timm_vit(config, no_embed_class=True, reg_tokens=config.num_register_tokens)


def timm_swin(config: PreTrainedConfig) -> nn.Module:
    """Returns timm's Swin or Swin v2."""
    import timm

    second = config.model_type == "hf_swin_v2"
    windows = tuple(stage.blocks[0].window for stage in config.stage_specs())
    numbers = {"pretrained_window_sizes": tuple(config.pretrained_window_sizes)} if second else {}
    return (timm.models.SwinTransformerV2 if second else timm.models.SwinTransformer)(
        img_size=pair(config.image_size),
        patch_size=pair(config.patch_size)[0],
        in_chans=config.num_channels,
        num_classes=_labels(config),
        embed_dim=config.embed_dim,
        depths=tuple(config.depths),
        num_heads=tuple(config.num_heads),
        window_size=max(windows) if second else windows,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=config.qkv_bias,
        **numbers,
    )


def torchvision_vit(config: PreTrainedConfig) -> nn.Module:
    """Returns torchvision's ViT."""
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=pair(config.image_size)[0],
        patch_size=pair(config.patch_size)[0],
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        hidden_dim=config.hidden_size,
        mlp_dim=config.intermediate_size,
        num_classes=_labels(config),
        representation_size=config.pooler_output_size if config.pooler == "always" else None,
    )
    if not _labels(config):
        model.heads = nn.Identity()
    return model


def torchvision_swin(config: PreTrainedConfig) -> nn.Module:
    """Returns torchvision's Swin or Swin v2."""
    from torchvision.models import swin_transformer as swin

    second = config.model_type == "hf_swin_v2"
    numbers = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2} if second else {}
    model = swin.SwinTransformer(
        patch_size=[*pair(config.patch_size)],
        embed_dim=config.embed_dim,
        depths=[*config.depths],
        num_heads=[*config.num_heads],
        window_size=[*config.stage_specs()[0].blocks[0].window],
        mlp_ratio=config.mlp_ratio,
        num_classes=_labels(config) or 1,
        **numbers,
    )
    if not _labels(config):
        model.head = nn.Identity()
    return model


_TIMM_VIT = ("norm_pre", "blocks.{i}", "norm")
_TIMM_SWIN = Peer(timm_swin, ("patch_embed", "layers.{s}.blocks.{b}", "layers.{s+1}.downsample", "norm"))
_TORCHVISION_SWIN = Peer(torchvision_swin, ("features.0", "features.{2*s+1}.{b}", "features.{2*s+2}", "norm"))
PEERS = {
    **dict.fromkeys(("timm_vit", "facebook_deit", "facebook_dino", "facebook_mae"), Peer(timm_vit, _TIMM_VIT)),
    "timm_vit_no_class_position": Peer(timm_vit_no_class_position, _TIMM_VIT),
    **dict.fromkeys(("timm_swin", "timm_swin_v2"), _TIMM_SWIN),
    "torchvision_vit": Peer(torchvision_vit, ("encoder.dropout", "encoder.layers.encoder_layer_{i}", "encoder.ln")),
    **dict.fromkeys(("torchvision_swin", "torchvision_swin_v2"), _TORCHVISION_SWIN),
}
# The names of the parts in the stock classes of transformers, by config.json's model type.
STOCK_PARTS = {
    **dict.fromkeys(("vit", "deit", "vit_mae"), VIT_PARTS),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), ("embeddings", "encoder.layer.{i}", "layernorm")),
    **dict.fromkeys(
        ("swin", "swinv2"),
        ("embeddings", "encoder.layers.{s}.blocks.{b}", "encoder.layers.{s}.downsample", "layernorm"),
    ),
}
