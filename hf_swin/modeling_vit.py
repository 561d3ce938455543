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
# Shapes: B batch, T tokens of an image, C channels.
"""The Vision Transformer, told once: An Image is Worth 16x16 Words (2021), and its descendants to DINOv2."""

from typing import Unpack

import torch
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_vit import HfViTConfig, cover, pair
from .modeling_attention import SelfAttention
from .modeling_blocks import LayerScale, PreNormBlock
from .modeling_embeddings import ViTEmbeddings
from .modeling_heads import (
    MaskedImageDecoder,
    Pooler,
    classification_loss,
    classifier,
    masked_image_loss,
    pool_tokens,
)
from .modeling_loading import ResizingMixin
from .modeling_names import VIT, VIT_ALIASES, PublishedNamesMixin, register_names


register_names(HfViTConfig.model_type, VIT, VIT_ALIASES)


class HfViTPreTrainedModel(ResizingMixin, PublishedNamesMixin, PreTrainedModel):  # trf-ignore: TRF057
    """What every ViT class tells transformers."""

    config: HfViTConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ViTEmbeddings", "PreNormBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": PreNormBlock, "attentions": SelfAttention}
    _input_embed_layer = "patch_embeddings"
    # The decoder is that of MAE files, whose encoder is an ordinary ViT.
    _keys_to_ignore_on_load_unexpected = [r"mask_token", r"^decoder\."]

    @torch.no_grad()
    def _init_weights(self, module):
        """Truncated normal weights and zero biases, as in the published code."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, LayerScale):
            init.constant_(module.weight, module.initial_value)
        elif isinstance(module, ViTEmbeddings):
            for tokens in module.parameters(recurse=False):
                init.trunc_normal_(tokens, std=std)


class HfViTModel(HfViTPreTrainedModel):  # trf-ignore: TRF057
    """Pixels (B, channels, height, width) of any size to tokens (B, T, C) and one pooled vector."""

    def __init__(self, config: HfViTConfig, add_pooling_layer: bool | None = None, use_mask_token: bool = False):
        super().__init__(config)
        add_pooling_layer = config.pooler != "none" if add_pooling_layer is None else add_pooling_layer
        self.embeddings = ViTEmbeddings(config, use_mask_token)
        self.layers = nn.ModuleList([PreNormBlock(config, spec) for spec in config.block_specs()])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = Pooler(config) if add_pooling_layer else None
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    def forward(  # trf-ignore: TRF057
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        x_BTC = self.embeddings(pixel_values, bool_masked_pos)
        for layer in self.layers:
            x_BTC = layer(x_BTC, **kwargs)
        # CODEPATH: MAE fine-tuned and timm's models with fc_norm take the mean first and the norm after it.
        norm_last = self.config.norm_after_pooling
        x_BTC = x_BTC if norm_last else self.layernorm(x_BTC)
        pooled_BC = pool_tokens(x_BTC, self.config.model_pooling, self.config.num_prefix_tokens)
        pooled_BC = self.layernorm(pooled_BC) if norm_last else pooled_BC
        if self.pooler is not None:
            pooled_BC = self.pooler(pooled_BC)
        return BaseModelOutputWithPooling(last_hidden_state=x_BTC, pooler_output=pooled_BC)


class HfViTForImageClassification(HfViTPreTrainedModel):  # trf-ignore: TRF057
    """ViT with a linear classifier; distilled DeiT has a second one on its own token and answers with their mean."""

    _keys_to_ignore_on_load_unexpected = [r"mask_token", r"^decoder\.", r"pooler\."]

    def __init__(self, config: HfViTConfig):
        super().__init__(config)
        self.vit = HfViTModel(config, add_pooling_layer=config.pooler == "always")
        self.classifier = classifier(config, config.classifier_size)
        self.distillation_classifier = None
        # CODEPATH: distilled DeiT checkpoints.
        if config.use_distillation_head:
            self.distillation_classifier = classifier(config, config.hidden_size)
        self.loss_function = classification_loss
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> ImageClassifierOutput:
        outputs = self.vit(pixel_values, return_dict=True, **kwargs)
        features_BC = outputs.pooler_output
        # CODEPATH: the linear heads of DINOv2 read the patches beside the class token, its model answers without them.
        if self.config.pooling == "class_and_mean":
            features_BC = pool_tokens(outputs.last_hidden_state, self.config.pooling, self.config.num_prefix_tokens)
        logits = self.classifier(features_BC)
        if self.distillation_classifier is not None:
            logits = (logits + self.distillation_classifier(outputs.last_hidden_state[:, 1])) / 2
        loss = None if labels is None else self.loss_function(labels, logits, self.config, **kwargs)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class HfViTForMaskedImageModeling(HfViTPreTrainedModel):  # trf-ignore: TRF057
    """ViT that paints what was masked, on squares and rectangles: SimMIM (2022)."""

    def __init__(self, config: HfViTConfig):
        super().__init__(config)
        self.vit = HfViTModel(config, add_pooling_layer=False, use_mask_token=True)
        self.decoder = MaskedImageDecoder(config, pair(config.patch_size))
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedImageModelingOutput:
        outputs = self.vit(pixel_values, bool_masked_pos, return_dict=True, **kwargs)
        patches_BTC = outputs.last_hidden_state[:, self.config.num_prefix_tokens :]
        grid = cover(pixel_values.shape[-2:], pair(self.config.patch_size))
        reconstruction = self.decoder(patches_BTC.unflatten(1, grid), pixel_values.shape[-2:])
        loss = None
        if bool_masked_pos is not None:
            loss = masked_image_loss(pixel_values, reconstruction, bool_masked_pos, pair(self.config.patch_size))
        return MaskedImageModelingOutput(
            loss=loss,
            reconstruction=reconstruction,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class HfViTBackbone(BackboneMixin, HfViTPreTrainedModel):  # trf-ignore: TRF057
    """Feature maps (B, C, H, W) after the blocks named in `out_features`; later blocks are not built."""

    def __init__(self, config: HfViTConfig):
        super().__init__(config)
        self.num_features = [config.hidden_size] * len(self.stage_names)
        depth = self.stage_names.index(self.out_features[-1])
        # What a classifier's file has and no feature map needs.
        self._keys_to_ignore_on_load_unexpected = [
            *(rf"layers\.{layer}\." for layer in range(depth, config.num_hidden_layers)),
            r"(^|\.)(mask_token|layernorm|pooler|classifier|distillation_classifier|decoder)(\.|$)",
        ]
        self.embeddings = ViTEmbeddings(config)
        self.layers = nn.ModuleList([PreNormBlock(config, spec) for spec in config.block_specs()[:depth]])
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # CODEPATH: DINOv2 backbones say apply_layernorm themselves; all others take the default, True.
        self.layernorm = norm if config.apply_layernorm else nn.Identity()
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    def encode(self, x_BTC: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        """Returns the tokens after the last block that was built."""
        for layer in self.layers:
            x_BTC = layer(x_BTC, **kwargs)
        return BaseModelOutputWithPooling(last_hidden_state=x_BTC)

    @can_return_tuple
    @filter_output_hidden_states
    def forward(  # trf-ignore: TRF057
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BackboneOutput:
        x_BTC = self.embeddings(pixel_values)
        outputs = self.encode(x_BTC, return_dict=True, **kwargs)
        grid = cover(pixel_values.shape[-2:], pair(self.config.patch_size))
        states = outputs.hidden_states or (x_BTC,)
        feature_maps = tuple(
            self.layernorm(state)[:, self.config.num_prefix_tokens :]
            .unflatten(1, grid)
            .permute(0, 3, 1, 2)
            .contiguous()
            for name, state in zip(self.stage_names, states, strict=False)
            if name in self.out_features
        )
        return BackboneOutput(feature_maps=feature_maps, hidden_states=states, attentions=outputs.attentions)


# What makes `save_pretrained` and `push_to_hub` copy these files beside the weights.
HfViTModel.register_for_auto_class("AutoModel")
HfViTForImageClassification.register_for_auto_class("AutoModelForImageClassification")
HfViTForMaskedImageModeling.register_for_auto_class("AutoModelForMaskedImageModeling")
HfViTBackbone.register_for_auto_class("AutoBackbone")
