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
"""The Swin Transformer V2, told by its differences: Scaling Up Capacity and Resolution (2022)."""

import math

import torch
from transformers import initialization as init

from .configuration_swin import HfSwinV2Config
from .modeling_attention import CosineWindowAttention
from .modeling_blocks import BranchLayerNorm
from .modeling_names import SWIN_V2, register_names
from .modeling_stages import SwinV2Stage
from .modeling_swin import (
    HfSwinBackbone,
    HfSwinForImageClassification,
    HfSwinForMaskedImageModeling,
    HfSwinModel,
    HfSwinPreTrainedModel,
)


register_names(HfSwinV2Config.model_type, SWIN_V2)


class HfSwinV2PreTrainedModel(HfSwinPreTrainedModel):  # trf-ignore: TRF057
    """What every Swin v2 class tells transformers."""

    config: HfSwinV2Config
    base_model_prefix = "swinv2"
    _no_split_modules = ["SwinEmbeddings", "SwinV2Block", "PatchMergingV2"]
    _keep_in_fp32_modules_strict = ["logit_scale", "continuous_position_bias"]

    stage_class = SwinV2Stage

    @torch.no_grad()
    def _init_weights(self, module):
        """Block norms start at zero, so that each block begins as the identity; temperatures at 10 (2022, 3.2)."""
        super()._init_weights(module)
        if isinstance(module, BranchLayerNorm):
            init.zeros_(module.weight)
        elif isinstance(module, CosineWindowAttention):
            init.constant_(module.logit_scale, math.log(10))


class HfSwinV2Model(HfSwinV2PreTrainedModel, HfSwinModel):  # trf-ignore: TRF057
    """Pixels (B, channels, height, width) of any size to tokens (B, H·W, C) at 1/32 of it, and their mean."""


class HfSwinV2ForImageClassification(HfSwinV2PreTrainedModel, HfSwinForImageClassification):  # trf-ignore: TRF057
    """Swin v2 with a linear classifier on the mean of its last tokens."""

    model_class = HfSwinV2Model


class HfSwinV2ForMaskedImageModeling(HfSwinV2PreTrainedModel, HfSwinForMaskedImageModeling):  # trf-ignore: TRF057
    """Swin v2 that paints what was masked, on squares and rectangles: SimMIM (2022)."""

    model_class = HfSwinV2Model


class HfSwinV2Backbone(HfSwinV2PreTrainedModel, HfSwinBackbone):  # trf-ignore: TRF057
    """Feature maps (B, C, H, W) of the stages named in `out_features`, before merging; later stages are not built."""


# What makes `save_pretrained` and `push_to_hub` copy these files beside the weights.
HfSwinV2Model.register_for_auto_class("AutoModel")
HfSwinV2ForImageClassification.register_for_auto_class("AutoModelForImageClassification")
HfSwinV2ForMaskedImageModeling.register_for_auto_class("AutoModelForMaskedImageModeling")
HfSwinV2Backbone.register_for_auto_class("AutoBackbone")
