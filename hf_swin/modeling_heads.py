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
"""Features to answers: pooling, classifier and loss, masked-image decoder and loss, norms of feature maps."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from .configuration_vit import cover


def pool_tokens(x_BTC: torch.Tensor, kind: str, num_prefix_tokens: int) -> torch.Tensor:
    """Returns one vector of ViT's tokens: the class token, the mean of the patches, or both side by side."""
    if kind == "class":
        return x_BTC[:, 0]
    mean = x_BTC[:, num_prefix_tokens:].mean(dim=1)
    return mean if kind == "mean" else torch.cat([x_BTC[:, 0], mean], dim=-1)


class Pooler(nn.Module):
    """A dense layer and an activation on the pooled vector (B, C): `pre_logits` of Google's imagenet21k heads."""

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.pooler_output_size or config.hidden_size)
        self.activation = ACT2FN[config.pooler_act]

    def forward(self, x_BC: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(x_BC))


def classifier(config, width: int) -> nn.Module:
    """Returns the linear layer from `width` features to the labels, or the identity for a model without labels."""
    return nn.Linear(width, config.num_labels) if config.num_labels > 0 else nn.Identity()


def classification_loss(
    labels: torch.Tensor, logits: torch.Tensor, config, num_items_in_batch: torch.Tensor | int | None = None, **kwargs
) -> torch.Tensor:
    """Returns the loss of logits (B, K), by the kind of labels and `config.problem_type`, which stays as it is.

    Class numbers (B,) and probabilities (B, K), such as MixUp makes, give the cross-entropy; 0 and 1 for each label
    (B, K) its binary form if the config says "multi_label_classification"; numbers the squared error if it says
    "regression" or there is one label. `num_items_in_batch` counts the elements of the labels of a whole update.
    """
    labels = labels.to(logits.device)
    # CODEPATH: what was trained for several labels an image, or for numbers, says so.
    if config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1):
        return F.mse_loss(logits.squeeze(-1), labels.to(logits.dtype).view_as(logits.squeeze(-1)))
    if config.problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    if num_items_in_batch is None:
        return F.cross_entropy(logits, labels)
    images = num_items_in_batch / labels[0].numel()
    return F.cross_entropy(logits, labels, reduction="sum") / images


class MaskedImageDecoder(nn.Module):
    """Paints each token of (B, H, W, C) as a square of `encoder_stride` pixels: SimMIM (2022), section 3.3.

    Raises for a stride that would not give the image back.
    """

    def __init__(self, config, stride):
        super().__init__()
        if stride[0] != stride[1]:
            raise ValueError(f"masked images are painted in squares, but a last token covers {stride} pixels")
        if config.encoder_stride != stride[0]:
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
    mask = bool_masked_pos.reshape(-1, *cover((height, width), patch_size))
    mask = mask.repeat_interleave(patch_size[0], 1).repeat_interleave(patch_size[1], 2)[:, None, :height, :width]
    error = F.l1_loss(reconstruction.float(), pixel_values.float(), reduction="none")  # a sum that half cannot hold
    return (error * mask).sum() / (mask.sum() + 1e-5) / channels


class FeatureNorms(nn.ModuleDict):
    """One LayerNorm for each feature map (B, H, W, C) that a Swin backbone gives out."""

    def __init__(self, config, channels):
        super().__init__()
        # CODEPATH: stock Swin backbones have norms, stock Swin v2 backbones have none.
        if config.apply_layernorm:
            self.update({name: nn.LayerNorm(width) for name, width in channels.items()})

    def forward(self, name: str, x_BHWC: torch.Tensor) -> torch.Tensor:
        return self[name](x_BHWC) if name in self else x_BHWC
