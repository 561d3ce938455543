"""Tiny models of every family, with weights far from their initial values, and stock peers of equal sizes."""

from dataclasses import dataclass, field

import torch
import transformers

import hf_swin


SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 5,
    "encoder_stride": 8,
}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_labels": 5,
    "encoder_stride": 8,
}
OURS = {
    "hf_vit": (hf_swin.HfViTConfig, {**VIT, "intermediate_size": 64}),
    "hf_swin": (hf_swin.HfSwinConfig, SWIN),
    "hf_swin_v2": (hf_swin.HfSwinV2Config, SWIN),
}
FAMILIES = list(OURS)
HEADS = ["Model", "ForImageClassification", "ForMaskedImageModeling", "Backbone"]


def config_of(family: str, **overrides):
    config_class, numbers = OURS[family]
    return config_class(**{**numbers, **overrides})


def class_of(family: str, head: str):
    return getattr(hf_swin, OURS[family][0].__name__.removesuffix("Config") + head)


def shaken(model: torch.nn.Module, scale: float = 0.2) -> torch.nn.Module:
    """Moves every parameter away from its initial value: v2's norms start at zero and hide every error."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = scale * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise if parameter.ndim >= 2 else parameter + noise)
    return model.eval()


def model_of(family: str, head: str = "ForImageClassification", **overrides):
    return shaken(class_of(family, head)(config_of(family, **overrides)))


def pixels(height: int, width: int | None = None, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width or height, generator=torch.Generator().manual_seed(height))


@dataclass
class Stock:
    """A class of transformers, a tiny config for it, and the class of ours that opens what it saves."""

    name: str
    config: str
    numbers: dict
    ours: str
    call: dict = field(default_factory=dict)

    def build(self):
        config = getattr(transformers, self.config)(**self.numbers)
        return shaken(getattr(transformers, self.name)(config))

    def __str__(self):
        return self.name


_INTERPOLATE = {"interpolate_pos_encoding": True}
_VIT = {**VIT, "intermediate_size": 64}
_SWIN_V2 = {**SWIN, "pretrained_window_sizes": [3, 0]}
_SWIN_MAPS = {"out_features": ["stem", "stage1", "stage2"]}

STOCK = [
    Stock("ViTModel", "ViTConfig", _VIT, "HfViTModel", _INTERPOLATE),
    Stock("ViTForImageClassification", "ViTConfig", _VIT, "HfViTForImageClassification", _INTERPOLATE),
    Stock("ViTForMaskedImageModeling", "ViTConfig", _VIT, "HfViTForMaskedImageModeling", _INTERPOLATE),
    Stock("DeiTModel", "DeiTConfig", _VIT, "HfViTModel", _INTERPOLATE),
    Stock("DeiTForImageClassification", "DeiTConfig", _VIT, "HfViTForImageClassification", _INTERPOLATE),
    Stock("DeiTForImageClassificationWithTeacher", "DeiTConfig", _VIT, "HfViTForImageClassification", _INTERPOLATE),
    Stock("Dinov2Model", "Dinov2Config", VIT, "HfViTModel"),
    Stock("Dinov2Model", "Dinov2Config", {**VIT, "use_swiglu_ffn": True, "mlp_ratio": 3}, "HfViTModel"),
    Stock("Dinov2ForImageClassification", "Dinov2Config", VIT, "HfViTForImageClassification"),
    Stock("Dinov2Backbone", "Dinov2Config", {**VIT, "out_features": ["stage1", "stage3"]}, "HfViTBackbone"),
    Stock("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", VIT, "HfViTModel"),
    Stock("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", VIT, "HfViTForImageClassification"),
    Stock("SwinModel", "SwinConfig", SWIN, "HfSwinModel"),
    Stock("SwinModel", "SwinConfig", {**SWIN, "use_absolute_embeddings": True}, "HfSwinModel", _INTERPOLATE),
    Stock("SwinForImageClassification", "SwinConfig", SWIN, "HfSwinForImageClassification"),
    Stock("SwinForMaskedImageModeling", "SwinConfig", SWIN, "HfSwinForMaskedImageModeling"),
    Stock("SwinBackbone", "SwinConfig", {**SWIN, **_SWIN_MAPS}, "HfSwinBackbone"),
    Stock("Swinv2Model", "Swinv2Config", _SWIN_V2, "HfSwinV2Model"),
    Stock("Swinv2ForImageClassification", "Swinv2Config", _SWIN_V2, "HfSwinV2ForImageClassification"),
    Stock("Swinv2ForMaskedImageModeling", "Swinv2Config", _SWIN_V2, "HfSwinV2ForMaskedImageModeling"),
    Stock("Swinv2Backbone", "Swinv2Config", {**_SWIN_V2, **_SWIN_MAPS}, "HfSwinV2Backbone"),
]
