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
"""Published sizes by the short names that people give them: `vit-b16`, `swin-t`, `swin-v2-s`."""

from collections.abc import Callable
from functools import partial

from transformers import PreTrainedConfig

from .configuration_swin import SWIN_PRESETS, SWIN_V2_PRESETS, HfSwinConfig, HfSwinV2Config
from .configuration_vit import VIT_PRESETS, HfViTConfig


def _vit_name(preset: str) -> str:
    return f"vit-{preset[0]}{VIT_PRESETS[preset].get('patch_size', HfViTConfig.patch_size)}"


# Name -> a function that takes other numbers of the config by name, such as `image_size` in pixels.
MODELS: dict[str, Callable[..., PreTrainedConfig]] = {
    **{_vit_name(preset): partial(HfViTConfig.preset, preset) for preset in VIT_PRESETS},
    **{f"swin-{preset[0]}": partial(HfSwinConfig.preset, preset) for preset in SWIN_PRESETS},
    **{f"swin-v2-{preset[0]}": partial(HfSwinV2Config.preset, preset) for preset in SWIN_V2_PRESETS},
}
