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
"""The numbers of a fine-tuning run, as a table, and which parameters weight decay leaves alone."""

import re
from dataclasses import dataclass, replace
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How one run trains: AdamW, a linear warm-up, then half a cosine down to zero.

    `warmup` is the part of all steps spent warming up; `drop_path` the rate of the deepest block; `augmentation` a name
    of `hf_swin.data.AUGMENTATIONS`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    augmentation: str = "light"


# Training images up to which a data set counts as small.
SMALL_DATA = 5_000

RECIPES: dict[tuple[str, str, str], Recipe] = {
    # family, weights to start from, data size
    ("swin", "random", "small"): Recipe(epochs=15, batch_size=32, learning_rate=1e-3),
    ("swin", "random", "large"): Recipe(epochs=60, batch_size=128, learning_rate=1e-3, drop_path=0.1),
    ("swin", "pretrained", "small"): Recipe(epochs=10, batch_size=32, learning_rate=1e-4, drop_path=0.1),
    ("swin", "pretrained", "large"): Recipe(epochs=5, batch_size=64, learning_rate=1e-4, drop_path=0.1),
    ("swin_v2", "random", "small"): Recipe(epochs=20, batch_size=32, learning_rate=1e-3),
    ("swin_v2", "random", "large"): Recipe(epochs=60, batch_size=128, learning_rate=1e-3, drop_path=0.1),
    ("swin_v2", "pretrained", "small"): Recipe(epochs=10, batch_size=32, learning_rate=1e-4, drop_path=0.1),
    ("swin_v2", "pretrained", "large"): Recipe(epochs=5, batch_size=64, learning_rate=1e-4, drop_path=0.1),
    ("vit", "random", "small"): Recipe(epochs=25, batch_size=32, learning_rate=2e-3),
    ("vit", "random", "large"): Recipe(epochs=60, batch_size=128, learning_rate=1e-3, drop_path=0.1),
    ("vit", "pretrained", "small"): Recipe(epochs=10, batch_size=32, learning_rate=5e-5, drop_path=0.1),
    ("vit", "pretrained", "large"): Recipe(epochs=5, batch_size=64, learning_rate=5e-5, drop_path=0.1),
}


def recipe_for(family: str, images: int, pretrained: bool, **overrides: Any) -> Recipe:
    """Return the row of the table for a family and a number of training images; `overrides` replace its numbers."""
    start = "pretrained" if pretrained else "random"
    size = "small" if images <= SMALL_DATA else "large"
    return replace(RECIPES[family, start, size], **overrides)


# Tables of tokens, positions and position biases, and temperatures: decay would pull them towards a value that means
# nothing. The same list as `no_weight_decay` in the official Swin, Swin v2 and timm code.
NO_DECAY = re.compile(
    r"(cls_token|distillation_token|register_tokens|mask_token|position_embeddings|relative_position_bias_table|logit_scale)$"
    r"|(^|\.)continuous_position_bias\."
)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay (matrices, kernels) and those that do not."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    kept = {name for name, parameter in named if parameter.ndim <= 1 or NO_DECAY.search(name)}
    return [
        {"params": [value for name, value in named if name not in kept], "weight_decay": recipe.weight_decay},
        {"params": [value for name, value in named if name in kept], "weight_decay": 0.0},
    ]
