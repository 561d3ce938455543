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
# Shapes: B batch, H W grid of tokens, C channels, T tokens of an image (ViT: those before the patches included).
"""Features to answers: pooling for the classifier, the masked-image decoder and its loss, norms of feature maps."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from .configuration_vit import pair


class Pooling(nn.Module):
    """Makes one vector of normed tokens (B, T, C): class token, mean of the patches or both, then `pooler` if any."""

    def __init__(self, config, add_pooling_layer):
        super().__init__()
        self.kind = config.pooling
        self.num_prefix_tokens = config.num_prefix_tokens
        self.output_size = config.pooled_size
        self.dense = None
        if add_pooling_layer:
            self.output_size = config.pooler_output_size or config.pooled_size
            self.dense = nn.Linear(config.pooled_size, self.output_size)
            self.activation = ACT2FN[config.pooler_act]

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        pooled = x_BTC[:, 0] if self.kind == "class" else x_BTC[:, self.num_prefix_tokens :].mean(dim=1)
        if self.kind == "class_and_mean":
            pooled = torch.cat([x_BTC[:, 0], pooled], dim=-1)
        return pooled if self.dense is None else self.activation(self.dense(pooled))


def classifier(config, width: int) -> nn.Module:
    """Returns the linear layer from `width` features to the labels, or the identity for a model without labels."""
    return nn.Linear(width, config.num_labels) if config.num_labels > 0 else nn.Identity()


class MaskedImageDecoder(nn.Module):
    """Paints each token of (B, H, W, C) as a square of `encoder_stride` pixels: SimMIM (2022), section 3.3.

    Raises for a stride that would not give the image back.
    """

    def __init__(self, config, stride):
        super().__init__()
        if pair(config.encoder_stride) != stride:
            raise ValueError(
                f"encoder_stride {config.encoder_stride} paints another image than it sees; set it to {stride[0]}"
            )
        self.projection = nn.Conv2d(config.hidden_size, config.encoder_stride**2 * config.num_channels, kernel_size=1)
        self.shuffle = nn.PixelShuffle(config.encoder_stride)

    def forward(self, x_BHWC: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return self.shuffle(self.projection(x_BHWC.permute(0, 3, 1, 2)))[..., : size[0], : size[1]]


def masked_image_loss(
    pixel_values: torch.Tensor, reconstruction: torch.Tensor, bool_masked_pos: torch.Tensor, patch_size: tuple[int, int]
) -> torch.Tensor:
    """Returns the mean absolute error over the masked pixels: SimMIM (2022), eq. 1.

    `bool_masked_pos` is (B, H·W) or (B, H, W) over the patches of the image, the last ones possibly cut.
    """
    _, channels, height, width = pixel_values.shape
    grid = (-(-height // patch_size[0]), -(-width // patch_size[1]))
    mask = bool_masked_pos.reshape(-1, *grid)
    mask = mask.repeat_interleave(patch_size[0], 1).repeat_interleave(patch_size[1], 2)[:, None, :height, :width]
    error = F.l1_loss(reconstruction, pixel_values.to(reconstruction.dtype), reduction="none")
    return (error * mask).sum() / (mask.sum() + 1e-5) / channels


class FeatureNorms(nn.ModuleDict):
    """One LayerNorm for each feature map (B, H, W, C) that a Swin backbone gives out."""

    def __init__(self, config, channels):
        super().__init__()
        # CODEPATH: stock Swin backbones have norms, stock Swin v2 backbones have none.
        if config.apply_layernorm:
            self.update({name: nn.LayerNorm(width, eps=config.layer_norm_eps) for name, width in channels.items()})

    def forward(self, name: str, x_BHWC: torch.Tensor) -> torch.Tensor:
        return self[name](x_BHWC) if name in self else x_BHWC
