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
"""One module per format: FAMILY, FILE, CONTAINER, SIGNATURE, HOLDS, config(tensors, hints) and rules(config)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import torch


Tensors = Mapping[str, torch.Tensor]
NAMES = (
    "transformers_vit",
    "transformers_vit_runtime",
    "transformers_deit",
    "transformers_deit_runtime",
    "transformers_dinov2",
    "transformers_dinov2_runtime",
    "transformers_swin",
    "transformers_swin_runtime",
    "transformers_swin_v2",
    "timm_vit",
    "timm_vit_no_class_position",
    "timm_swin",
    "timm_swin_v2",
    "torchvision_vit",
    "torchvision_vit_old",
    "torchvision_swin",
    "torchvision_swin_v2",
    "microsoft_swin",
    "microsoft_swin_v2",
    "simmim_swin",
    "simmim_swin_v2",
    "simmim_swin_v2_old",
    "openmmlab_swin",
    "openmmlab_swin_old",
    "openmmlab_swin_backbone",
    "openmmlab_swin_v2",
    "detection_swin",
    "google_vit",
    "google_vit_linen",
    "big_vision",
    "big_vision_scan",
    "facebook_deit",
    "facebook_deit3",
    "facebook_dino",
    "facebook_dinov2",
    "facebook_mae",
)


@dataclass(frozen=True)
class Signature:
    """What tells the files of a format from all others: keys, the key of the container they lie in, and shapes."""

    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    container: str | None = None
    shapes: Callable[[Tensors], bool] = lambda tensors: True

    def fits(self, tensors: Tensors, container: str) -> bool:
        """Returns whether tensors found under the key `container` of a file ("" for its top) can be of the format."""
        return (
            all(key in tensors for key in self.has)
            and not any(key in tensors for key in self.lacks)
            and self.container in (None, container)
            and self.shapes(tensors)
        )


def named(name: str) -> ModuleType:
    """Returns the module of a format."""
    return import_module(f".{name}", __name__)


def fitting(tensors: Tensors, container: str = "") -> list[str]:
    """Returns the formats whose signature tensors bear."""
    return [name for name in NAMES if named(name).SIGNATURE.fits(tensors, container)]
