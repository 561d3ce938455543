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
"""Every number of a Vision Transformer and of its published variants."""

from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

from .configuration_shared import StockConfigMixin, pair


# How a learned table of positions meets another grid; modeling_resizing.POSITION_RULES says who does what.
PositionResizing = Literal[
    "bicubic", "bicubic_antialias", "bicubic_offset", "bicubic_align_corners", "bilinear_align_corners"
]


def cover(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Returns how many patches cover an image, the last ones possibly cut: (height, width)."""
    return tuple(-(-side // step) for side, step in zip(size, patch, strict=True))


def linear_schedule(rate: float, count: int) -> list[float]:
    """Returns the DropPath rate of each of `count` blocks, from 0 to `rate`: Stochastic Depth (2016), section 3."""
    return [rate * index / max(count - 1, 1) for index in range(count)]


@dataclass(frozen=True)
class BlockSpec:
    """What one residual block needs beyond the config: its width, its heads and its place in the depth."""

    hidden_size: int
    num_heads: int
    intermediate_size: int
    drop_path_rate: float
    layerscale_value: float | None = None
    gated_mlp: bool = False


# Published sizes: An Image is Worth 16x16 Words (2021), table 1; Ti and S: DeiT (2021), table 1.
VIT_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768},
    "small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
        "patch_size": 14,
    },
}

# For small images and few of them. The usual initial spread of 0.02 is for widths of 768; this narrow, training stalls.
SMALL_VIT: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "initializer_range": 0.08,
}

_VIT_NUMBERS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "patch_size": 16}
_DINOV2_NUMBERS = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "layerscale_value": 1.0}


@strict
class HfViTConfig(StockConfigMixin, BackboneConfigMixin, PreTrainedConfig):  # trf-ignore: TRF057
    """Every number of a Vision Transformer (An Image is Worth 16x16 Words, 2021) and of its published variants.

    Sizes are pixels, one int or (height, width); rates are probabilities. Fields of the stock ViT, DeiT and DINOv2
    configs keep their names, so that such a `config.json` opens unchanged. Raises for tokens that do not fit together.
    """

    model_type = "hf_vit"
    modeling_file = "modeling_vit"
    class_prefix = "HfViT"

    image_size: int | list[int] | tuple[int, ...] = 224
    patch_size: int | list[int] | tuple[int, ...] = 16
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    # Google's ViT was trained with gelu_pytorch_tanh; all others with gelu (erf).
    hidden_act: str = "gelu"
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02
    # Tokens before the patches, in this order: class, distillation (DeiT), registers (DINOv2).
    use_class_token: bool = True
    use_distillation_token: bool = False
    num_register_tokens: int = 0
    position_embedding_type: Literal["learned", "sinusoidal_1d", "sinusoidal_2d", "none"] = "learned"
    # transformers, DeiT, MAE: bicubic; timm, DINOv2 with registers: bicubic_antialias; the original code of DINO and
    # DINOv2: bicubic_offset; torchvision: bicubic_align_corners; Google: bilinear_align_corners.
    position_resizing: PositionResizing = "bicubic"
    # DeiT-III, DINOv2: a learned scale on each branch, started at this value; None for none.
    layerscale_value: float | None = None
    # DINOv2 giant: SiLU-gated MLP of intermediate_size.
    use_swiglu_ffn: bool = False
    # What the classifier reads: the class token, the mean of the patches, or both (the linear head of DINOv2).
    pooling: Literal["class", "mean", "class_and_mean"] = "class"
    # The last norm acts on the pooled vector, not on the tokens (timm's fc_norm; MAE fine-tuned).
    norm_after_pooling: bool = False
    # A dense layer and an activation after pooling. "model": HfViTModel has it and classifiers do without, as stock
    # ViTModel files; "always": classifiers read it too, as the `pre_logits` of Google's imagenet21k heads.
    pooler: Literal["none", "model", "always"] = "none"
    pooler_output_size: int | None = None
    pooler_act: str = "tanh"
    # DeiT: a second classifier on the distillation token; the answer is the mean of both.
    use_distillation_head: bool = False
    # Pixels that one token of the masked-image decoder paints (SimMIM, 2022); the patch size if not given.
    encoder_stride: int | None = None
    # Whether feature maps of the backbone pass the final norm.
    apply_layernorm: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    stock_defaults = {
        "vit": _VIT_NUMBERS,
        "vit_mae": _VIT_NUMBERS,
        "deit": {**_VIT_NUMBERS, "use_distillation_token": True},
        "dinov2": {**_DINOV2_NUMBERS, "patch_size": 14},
        "dinov2_with_registers": {
            **_DINOV2_NUMBERS,
            "patch_size": 16,
            "num_register_tokens": 4,
            "position_resizing": "bicubic_antialias",
        },
    }

    @classmethod
    def from_stock(cls, config_dict: dict[str, Any]) -> dict[str, Any]:
        stock_type = config_dict.get("model_type")
        config_dict = dict(super().from_stock(config_dict))
        architecture = (config_dict.get("architectures") or [""])[0]
        if stock_type in ("vit", "deit"):
            # stock base models have a pooler unless told otherwise, which no file says
            config_dict.setdefault("pooler", "model" if architecture in ("ViTModel", "DeiTModel", "") else "none")
            config_dict.setdefault("use_distillation_head", architecture.endswith("WithTeacher"))
        if stock_type in ("dinov2", "dinov2_with_registers"):
            width = config_dict.get("hidden_size", cls.hidden_size) * config_dict.pop("mlp_ratio", 4)
            if config_dict.get("use_swiglu_ffn"):
                width = (int(width * 2 / 3) + 7) // 8 * 8  # DINOv2: two thirds, rounded up to a multiple of 8
            config_dict.setdefault("intermediate_size", int(width))
            config_dict.setdefault("pooling", "class_and_mean")
            if not config_dict.pop("reshape_hidden_states", True):
                raise ValueError(
                    "reshape_hidden_states=False is not supported: feature maps are (B, C, H, W); remove it"
                )
        return config_dict

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem", *(f"stage{index}" for index in range(1, self.num_hidden_layers + 1))]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)
        if self.encoder_stride is None:
            self.encoder_stride = pair(self.patch_size)[0]

    @classmethod
    def preset(cls, name: str, **overrides) -> "HfViTConfig":
        """Returns a published size: tiny, small, base, large or huge; raises ValueError for another name."""
        return cls(**{**look_up(VIT_PRESETS, name), **overrides})

    @classmethod
    def for_image_size(cls, image_size: int, **overrides) -> "HfViTConfig":
        """Returns a config for small images of 28 to 112 pixels; raises ValueError outside that range.

        The patch follows from the size so that an image is a grid of 7 to 14 patches a side, as a 224-pixel image is
        for ViT-B/16: fewer leave attention nothing to compare, more cost time that small data cannot repay.
        """
        check_small(image_size)
        patch_size = 4 if image_size <= 56 else 8
        return cls(**{"image_size": image_size, "patch_size": patch_size, **SMALL_VIT, **overrides})

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of an image of `image_size`: (height, width)."""
        return cover(pair(self.image_size), pair(self.patch_size))

    @property
    def num_positioned_tokens(self) -> int:
        """Tokens before the patches that have a position of their own: class and distillation, not the registers."""
        return int(self.use_class_token) + int(self.use_distillation_token)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return self.num_positioned_tokens + self.num_register_tokens

    @property
    def model_pooling(self) -> str:
        """What `pooler_output` of HfViTModel is made of: the class token, unless classifiers read the mean alone."""
        return "mean" if self.pooling == "mean" else "class"

    @property
    def classifier_size(self) -> int:
        """Width of the vector that the classifier reads."""
        if self.pooler == "always":
            return self.pooler_output_size or self.hidden_size
        return self.hidden_size * (2 if self.pooling == "class_and_mean" else 1)

    def block_specs(self) -> list[BlockSpec]:
        """Returns what each block needs, first to last."""
        rates = linear_schedule(self.drop_path_rate, self.num_hidden_layers)
        return [
            BlockSpec(
                hidden_size=self.hidden_size,
                num_heads=self.num_attention_heads,
                intermediate_size=self.intermediate_size,
                drop_path_rate=rate,
                layerscale_value=self.layerscale_value,
                gated_mlp=self.use_swiglu_ffn,
            )
            for rate in rates
        ]

    def validate_rates(self):
        """Part of `@strict` validation."""
        check_rates(self)

    def validate_tokens(self):
        """Part of `@strict` validation."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_attention_heads} heads; "
                "change hidden_size or num_attention_heads"
            )
        if self.pooling != "mean" and not self.use_class_token:
            raise ValueError(
                f"pooling={self.pooling!r} needs the class token; set use_class_token=True or pooling='mean'"
            )
        if self.norm_after_pooling and self.pooling == "class_and_mean":
            raise ValueError("norm_after_pooling=True needs one pooled vector, pooling='class_and_mean' makes two")
        if self.pooler == "always" and self.pooling == "class_and_mean":
            raise ValueError("pooler='always' reads one vector, pooling='class_and_mean' makes two; choose one of them")
        if self.use_distillation_head and not self.use_distillation_token:
            raise ValueError("use_distillation_head=True needs use_distillation_token=True")
        if self.position_embedding_type.startswith("sinusoidal") and self.hidden_size % 4:
            raise ValueError(f"sinusoidal positions need a hidden_size divisible by 4, got {self.hidden_size}")


def check_rates(config) -> None:
    """Raises ValueError for a probability of dropping that leaves nothing, or less."""
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} is a probability below 1, got {getattr(config, name)}")


def look_up(presets: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Returns the row of a table of presets; raises ValueError that lists the names there are."""
    if name not in presets:
        raise ValueError(f"no preset is called {name!r}; choose one of {', '.join(presets)}")
    return presets[name]


def check_small(image_size: int) -> None:
    """Raises ValueError for an image size that the small-image presets are not made for."""
    if not 28 <= image_size <= 112:
        raise ValueError(
            f"for_image_size is made for 28 to 112 pixels, got {image_size}; use preset() for larger images "
            "and enlarge smaller ones"
        )


# What makes a saved config bring its file along.
HfViTConfig.register_for_auto_class()
