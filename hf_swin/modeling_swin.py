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
# Shapes: B batch, H W grid of tokens, C channels.
"""The Swin Transformer, told once: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows (2021)."""

from dataclasses import dataclass, replace
from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput, BaseModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import TransformersKwargs
from transformers.utils.generic import ModelOutput, can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_swin import HfSwinConfig
from .configuration_vit import cover, pair
from .modeling_attention import WindowAttention
from .modeling_embeddings import SwinEmbeddings
from .modeling_heads import FeatureNorms, MaskedImageDecoder, classification_loss, classifier, masked_image_loss
from .modeling_loading import ResizingMixin
from .modeling_names import SWIN, PublishedNamesMixin, register_names
from .modeling_stages import SwinStage


register_names(HfSwinConfig.model_type, SWIN)


@dataclass
class HfSwinModelOutput(ModelOutput):  # trf-ignore: TRF057
    """Tokens (B, H·W, C) after the last norm, their mean, and on request the stages' tokens, maps and weights.

    `hidden_states` are the patches and then what each stage hands on, after merging; `reshaped_hidden_states` the same
    as (B, C, H, W); `attentions` one (B, windows, heads, tokens, tokens) for each block.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class HfSwinImageClassifierOutput(ModelOutput):  # trf-ignore: TRF057
    """Logits (B, labels), the loss if labels were given, and what HfSwinModelOutput has on request."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class HfSwinMaskedImageModelingOutput(ModelOutput):  # trf-ignore: TRF057
    """Painted pixels (B, channels, height, width), the loss if a mask was given, and what HfSwinModelOutput has."""

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.Tensor, ...] | None = None


def as_tokens(x_BHWC: torch.Tensor | None) -> torch.Tensor | None:
    """Returns a grid (B, H, W, C) as (B, H·W, C); one that was not asked for stays None."""
    return None if x_BHWC is None else x_BHWC.flatten(1, 2)


def as_image(x_BHWC: torch.Tensor | None) -> torch.Tensor | None:
    """Returns a grid (B, H, W, C) as (B, C, H, W); one that was not asked for stays None."""
    return None if x_BHWC is None else x_BHWC.permute(0, 3, 1, 2)


class HfSwinPreTrainedModel(ResizingMixin, PublishedNamesMixin, PreTrainedModel):  # trf-ignore: TRF057
    """What every Swin class tells transformers."""

    config: HfSwinConfig
    base_model_prefix = "swin"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["SwinEmbeddings", "SwinBlock", "PatchMerging"]
    _supports_sdpa = True
    _supports_flash_attn = False  # these kernels take no additive bias
    _supports_flex_attn = False
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": OutputRecorder(SwinStage, index=0), "attentions": WindowAttention}
    _input_embed_layer = "patch_embeddings"
    _keys_to_ignore_on_load_unexpected = [r"relative_position_index", r"relative_coords_table", r"attn_mask"]

    stage_class = SwinStage

    @torch.no_grad()
    def _init_weights(self, module):
        """Truncated normal weights and tables, zero biases, as in the published code."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, SwinEmbeddings):
            for tokens in module.parameters(recurse=False):
                init.trunc_normal_(tokens, std=std)
        elif getattr(module, "relative_position_bias_table", None) is not None:
            init.trunc_normal_(module.relative_position_bias_table, std=std)

    @capture_outputs(tie_last_hidden_states=False)
    def encode(self, x_BHWC: torch.Tensor, **kwargs) -> BaseModelOutput:
        """Returns the grid (B, H, W, C) after the last stage, and on request all those before it."""
        for stage in self.stages:
            x_BHWC, _ = stage(x_BHWC, **kwargs)
        return BaseModelOutput(last_hidden_state=x_BHWC)


class HfSwinModel(HfSwinPreTrainedModel):  # trf-ignore: TRF057
    """Pixels (B, channels, height, width) of any size to tokens (B, H·W, C) at 1/32 of it, and their mean."""

    def __init__(self, config: HfSwinConfig, use_mask_token: bool = False):
        super().__init__(config)
        self.embeddings = SwinEmbeddings(config, use_mask_token)
        self.stages = nn.ModuleList([self.stage_class(config, spec) for spec in config.stage_specs()])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> HfSwinModelOutput:
        x_BHWC = self.embeddings(pixel_values, bool_masked_pos)
        outputs = self.encode(x_BHWC, return_dict=True, **kwargs)
        tokens_BTC = as_tokens(self.layernorm(outputs.last_hidden_state))
        maps = outputs.hidden_states
        return HfSwinModelOutput(
            last_hidden_state=tokens_BTC,
            pooler_output=tokens_BTC.mean(dim=1),
            hidden_states=None if maps is None else tuple(map(as_tokens, maps)),
            attentions=outputs.attentions,
            reshaped_hidden_states=None if maps is None else tuple(map(as_image, maps)),
        )


class HfSwinForImageClassification(HfSwinPreTrainedModel):  # trf-ignore: TRF057
    """Swin with a linear classifier on the mean of its last tokens."""

    model_class = HfSwinModel

    def __init__(self, config: HfSwinConfig):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.model_class(config))
        self.classifier = classifier(config, config.hidden_size)
        self.loss_function = classification_loss
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> HfSwinImageClassifierOutput:
        outputs = self.base_model(pixel_values, return_dict=True, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        return HfSwinImageClassifierOutput(
            loss=None if labels is None else self.loss_function(labels, logits, self.config, **kwargs),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


class HfSwinForMaskedImageModeling(HfSwinPreTrainedModel):  # trf-ignore: TRF057
    """Swin that paints what was masked, on squares and rectangles: SimMIM (2022)."""

    model_class = HfSwinModel

    def __init__(self, config: HfSwinConfig):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.model_class(config, use_mask_token=True))
        self.decoder = MaskedImageDecoder(config, config.total_stride)
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> HfSwinMaskedImageModelingOutput:
        outputs = self.base_model(pixel_values, bool_masked_pos, return_dict=True, **kwargs)
        size = pixel_values.shape[-2:]
        x_BHWC = outputs.last_hidden_state.unflatten(1, cover(size, self.config.total_stride))
        reconstruction = self.decoder(x_BHWC, size)
        loss = None
        if bool_masked_pos is not None:
            loss = masked_image_loss(pixel_values, reconstruction, bool_masked_pos, pair(self.config.patch_size))
        return HfSwinMaskedImageModelingOutput(
            loss=loss,
            reconstruction=reconstruction,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
        )


class HfSwinBackbone(BackboneMixin, HfSwinPreTrainedModel):  # trf-ignore: TRF057
    """Feature maps (B, C, H, W) of the stages named in `out_features`, before merging; later stages are not built."""

    _can_record_outputs = {"hidden_states": OutputRecorder(SwinStage, index=1), "attentions": WindowAttention}

    def __init__(self, config: HfSwinConfig):
        super().__init__(config)
        self.num_features = [config.embed_dim, *(config.embed_dim * 2**stage for stage in range(config.num_layers))]
        depth = self.stage_names.index(self.out_features[-1])
        specs = config.stage_specs()[:depth]
        specs[-1:] = [replace(spec, merges=False) for spec in specs[-1:]]
        # What a classifier's file has and no feature map needs.
        self._keys_to_ignore_on_load_unexpected = [
            *HfSwinPreTrainedModel._keys_to_ignore_on_load_unexpected,
            *(rf"stages\.{stage}\." for stage in range(depth, config.num_layers)),
            rf"stages\.{depth - 1}\.merging\.",
            r"(^|\.)(mask_token|layernorm|hidden_states_norms|classifier|decoder)(\.|$)",
        ]
        self.embeddings = SwinEmbeddings(config)
        self.stages = nn.ModuleList([self.stage_class(config, spec) for spec in specs])
        self.hidden_states_norms = FeatureNorms(config, dict(zip(self.out_features, self.channels, strict=True)))
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(  # trf-ignore: TRF057
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BackboneOutput:
        x_BHWC = self.embeddings(pixel_values)
        outputs = self.encode(x_BHWC, return_dict=True, **kwargs)
        maps = outputs.hidden_states or (x_BHWC,)
        feature_maps = tuple(
            as_image(self.hidden_states_norms(name, x_BHWC)).contiguous()
            for name, x_BHWC in zip(self.stage_names, maps, strict=False)
            if name in self.out_features
        )
        return BackboneOutput(
            feature_maps=feature_maps, hidden_states=tuple(map(as_image, maps)), attentions=outputs.attentions
        )


# What makes `save_pretrained` and `push_to_hub` copy these files beside the weights.
HfSwinModel.register_for_auto_class("AutoModel")
HfSwinForImageClassification.register_for_auto_class("AutoModelForImageClassification")
HfSwinForMaskedImageModeling.register_for_auto_class("AutoModelForMaskedImageModeling")
HfSwinBackbone.register_for_auto_class("AutoBackbone")
