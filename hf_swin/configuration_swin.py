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
"""Every number of a Swin Transformer, first and second version, and what each stage and block takes from them."""

from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

from .configuration_shared import StockConfigMixin, pair
from .configuration_vit import BlockSpec, PositionResizing, check_rates, check_small, cover, linear_schedule, look_up


@dataclass(frozen=True)
class WindowBlockSpec(BlockSpec):
    """A block that attends in windows: W-MSA, or SW-MSA where `shifted`."""

    window: tuple[int, int] = (7, 7)
    shifted: bool = False
    # The stage's grid at config.image_size.
    home_grid: tuple[int, int] = (56, 56)
    # Swin v2: the window over which its bias network measures distances.
    reference_window: tuple[int, int] = (7, 7)


@dataclass(frozen=True)
class StageSpec:
    """What one stage needs: its blocks, and whether patch merging follows."""

    hidden_size: int
    blocks: tuple[WindowBlockSpec, ...]
    merges: bool


# Published sizes: Swin Transformer (2021), section 3.3.
SWIN_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
# Swin Transformer V2 (2022), section 3.5: tiny to base were trained at 256 pixels in windows of 8, large at 192 in 12.
SWIN_V2_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {**SWIN_PRESETS["tiny"], "image_size": 256, "window_size": 8},
    "small": {**SWIN_PRESETS["small"], "image_size": 256, "window_size": 8},
    "base": {**SWIN_PRESETS["base"], "image_size": 256, "window_size": 8},
    "large": {**SWIN_PRESETS["large"], "image_size": 192, "window_size": 12},
}

# For small images and few of them. The usual initial spread of 0.02 is for widths of 768; this narrow, training stalls.
SMALL_SWIN: dict[str, Any] = {
    "embed_dim": 24,
    "depths": (2, 2, 2),
    "num_heads": (2, 4, 8),
    "initializer_range": 0.08,
}


@strict
class HfSwinConfig(StockConfigMixin, BackboneConfigMixin, PreTrainedConfig):  # trf-ignore: TRF057
    """Every number of a Swin Transformer (Liu et al., 2021).

    Sizes are one int or (height, width): `image_size` and `patch_size` in pixels, `window_size` in tokens, also as a
    list with one per stage. Rates are probabilities. Fields of the stock SwinConfig keep their names, so that its
    `config.json` opens unchanged. Raises for stages that do not fit together.
    """

    model_type = "hf_swin"
    modeling_file = "modeling_swin"
    class_prefix = "HfSwin"
    attribute_map = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}

    image_size: int | list[int] | tuple[int, ...] = 224
    patch_size: int | list[int] | tuple[int, ...] = 4
    num_channels: int = 3
    embed_dim: int = 96
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    # One int for all stages, or a list with one int or pair for each: [[7, 14]] * 4 is a rectangle in four stages.
    window_size: int | list | tuple = 7
    mlp_ratio: float | int = 4.0
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    initializer_range: float = 0.02
    use_absolute_embeddings: bool = False
    # How an absolute position table meets another grid.
    position_resizing: PositionResizing = "bicubic"
    # How a bias table is made for another window: bicubic (Microsoft), geometric_cubic (SimMIM), geometric_linear
    # (timm). The second version has no tables.
    bias_resizing: Literal["bicubic", "geometric_cubic", "geometric_linear"] = "bicubic"
    # What happens to a window where the grid is not larger, see modeling_windows.window_layout:
    # "clamp" (timm), "square" (Microsoft, transformers v1), "pad" (torchvision), "fixed" (transformers v2).
    small_input: Literal["clamp", "square", "pad", "fixed"] = "clamp"
    # Detection and segmentation backbones always partition and shift, even where one window covers the grid.
    always_partition: bool = False
    # Published weights were trained with padded tokens attended; True hides them.
    mask_padding: bool = False
    # Pixels that one token of the masked-image decoder paints (SimMIM, 2022); those under a last token if not given.
    encoder_stride: int | None = None
    # Whether each feature map of the backbone passes a norm of its own.
    apply_layernorm: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    stock_defaults = {"swin": {"small_input": "square"}}

    @classmethod
    def from_stock(cls, config_dict: dict[str, Any]) -> dict[str, Any]:
        stock_type = config_dict.get("model_type")
        config_dict = dict(super().from_stock(config_dict))
        if stock_type == "swin" and (config_dict.get("architectures") or [""])[0] == "SwinBackbone":
            config_dict.setdefault("always_partition", True)
        return config_dict

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem", *(f"stage{index}" for index in range(1, len(self.depths) + 1))]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)
        # Derived, so set after whatever a file says: the names under which generic code looks for them.
        self.num_layers = len(self.depths)
        self.hidden_size = self.embed_dim * 2 ** (self.num_layers - 1)
        if self.encoder_stride is None:
            self.encoder_stride = self.total_stride[0]

    @classmethod
    def preset(cls, name: str, **overrides) -> "HfSwinConfig":
        """Returns a published size: tiny, small, base or large; raises ValueError for another name."""
        return cls(**{**look_up(SWIN_PRESETS, name), **overrides})

    @classmethod
    def for_image_size(cls, image_size: int, **overrides) -> "HfSwinConfig":
        """Returns a config for small images of 28 to 112 pixels; raises ValueError outside that range.

        Patches of 2, or 4 from 64 pixels on, make a first grid of 14 to 32 tokens a side: enough for several windows
        to shift between, few enough to be fast. The window is the one of 7, 6, 5 and 4 that needs the least padding.
        """
        check_small(image_size)
        patch_size = 2 if image_size < 64 else 4
        grid = -(-image_size // patch_size)
        window_size = min((7, 6, 5, 4), key=lambda side: -grid % side)
        sizes = {"image_size": image_size, "patch_size": patch_size, "window_size": window_size}
        return cls(**{**sizes, **SMALL_SWIN, **overrides})

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of an image of `image_size`: (height, width)."""
        return cover(pair(self.image_size), pair(self.patch_size))

    @property
    def total_stride(self) -> tuple[int, int]:
        """Pixels of the image under one token of the last stage: (height, width)."""
        return tuple(patch * 2 ** (self.num_layers - 1) for patch in pair(self.patch_size))

    @property
    def partition_rule(self) -> str:
        """The rule by which windows meet a grid, for modeling_windows.window_layout."""
        return "always" if self.always_partition else self.small_input

    def stage_specs(self) -> list[StageSpec]:
        """Returns what each stage needs, first to last."""
        rates = iter(linear_schedule(self.drop_path_rate, sum(self.depths)))
        return [
            StageSpec(
                hidden_size=self.embed_dim * 2**stage,
                blocks=tuple(self._block_spec(stage, block, next(rates)) for block in range(depth)),
                merges=stage < len(self.depths) - 1,
            )
            for stage, depth in enumerate(self.depths)
        ]

    def _block_spec(self, stage: int, block: int, drop_path_rate: float) -> WindowBlockSpec:
        width = self.embed_dim * 2**stage
        home_grid = tuple(max(size // 2**stage, 1) for size in self.grid)
        window = self.window_of_stage(stage, home_grid)
        return WindowBlockSpec(
            hidden_size=width,
            num_heads=self.num_heads[stage],
            intermediate_size=int(width * self.mlp_ratio),
            drop_path_rate=drop_path_rate,
            window=window,
            shifted=block % 2 == 1,
            home_grid=home_grid,
            reference_window=self.reference_window_of_stage(stage, window),
        )

    @property
    def table_windows(self) -> list[tuple[int, int]]:
        """The window of each stage's learned bias table: (height, width); the second version has none."""
        return [spec.blocks[0].window for spec in self.stage_specs()]

    def window_of_stage(self, stage: int, home_grid: tuple[int, int]) -> tuple[int, int]:
        """Returns (height, width) of the window that the weights of a stage are made for."""
        return pair(self.window_size if isinstance(self.window_size, int) else self.window_size[stage])

    def reference_window_of_stage(self, stage: int, window: tuple[int, int]) -> tuple[int, int]:
        """Returns the window over which the bias of a stage is defined: its own, in the first version."""
        return window

    def validate_rates(self):
        """Part of `@strict` validation."""
        check_rates(self)

    def validate_stages(self):
        """Part of `@strict` validation."""
        per_stage = {"num_heads": self.num_heads}
        if not isinstance(self.window_size, int):
            per_stage["window_size"] = self.window_size
        for name, values in per_stage.items():
            if len(values) != len(self.depths):
                raise ValueError(f"{name} {values} has {len(values)} entries for {len(self.depths)} stages of depths")
        for stage, heads in enumerate(self.num_heads):
            channels = self.embed_dim * 2**stage
            if channels % heads:
                raise ValueError(
                    f"stage {stage + 1}: {channels} channels do not divide into {heads} heads; "
                    "change embed_dim or num_heads"
                )
        windows = [pair(window) for window in per_stage.get("window_size", [self.window_size])]
        if min(map(min, windows)) < 1:
            raise ValueError(f"a window has at least one token a side, got window_size {self.window_size}")
        if self.small_input == "square" and any(height != width for height, width in windows):
            raise ValueError(f"small_input='square' needs square windows, got {self.window_size}; use 'clamp'")


@strict
class HfSwinV2Config(HfSwinConfig):  # trf-ignore: TRF057
    """Every number of a Swin Transformer V2 (Liu et al., 2022); `pretrained_window_sizes` as in its published files.

    The window of a stage is never larger than its grid at `image_size`, because the bias network measures distances in
    units of the window in use, or of `pretrained_window_sizes` (tokens, one per stage) where that is not 0.
    """

    model_type = "hf_swin_v2"
    modeling_file = "modeling_swin_v2"
    class_prefix = "HfSwinV2"

    image_size: int | list[int] | tuple[int, ...] = 256
    window_size: int | list | tuple = 8
    # One int or pair for each stage, 0 for the window in use; None: 0 in every stage.
    pretrained_window_sizes: list | tuple | None = None
    # Width of the small MLP that makes the position bias.
    bias_hidden_size: int = 512

    stock_defaults = {"swinv2": {"image_size": 224, "window_size": 7, "small_input": "fixed", "apply_layernorm": False}}

    def __post_init__(self, **kwargs):
        if self.pretrained_window_sizes is None:
            self.pretrained_window_sizes = [0] * len(self.depths)
        super().__post_init__(**kwargs)

    @classmethod
    def preset(cls, name: str, **overrides) -> "HfSwinV2Config":
        """Returns a published size: tiny, small, base or large; raises ValueError for another name."""
        return cls(**{**look_up(SWIN_V2_PRESETS, name), **overrides})

    @property
    def table_windows(self) -> list[tuple[int, int]]:
        return []

    def window_of_stage(self, stage: int, home_grid: tuple[int, int]) -> tuple[int, int]:
        window = super().window_of_stage(stage, home_grid)
        return tuple(min(side, size) for side, size in zip(window, home_grid, strict=True))

    def reference_window_of_stage(self, stage: int, window: tuple[int, int]) -> tuple[int, int]:
        pretrained = self.pretrained_window_sizes[stage]
        return pair(pretrained) if pretrained else window

    def validate_pretrained_windows(self):
        """Part of `@strict` validation."""
        if len(self.pretrained_window_sizes) < len(self.depths):
            raise ValueError(
                f"pretrained_window_sizes {self.pretrained_window_sizes} has fewer entries than the "
                f"{len(self.depths)} stages of depths"
            )


# What makes a saved config bring its file along.
HfSwinConfig.register_for_auto_class()
HfSwinV2Config.register_for_auto_class()
