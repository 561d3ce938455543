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
"""One model at two sizes: where two configs differ, and what the new one takes over from that of the weights."""

import copy

from .configuration_shared import pair
from .configuration_vit import cover


# What decides the shapes of tables and patches, or must agree with them.
SIZES = ("image_size", "patch_size", "num_channels", "window_size", "pretrained_window_sizes")


def shapes_of(config) -> tuple:
    """Returns what decides the shapes of resizable tensors: two configs that agree in it need no resizing."""
    learned = getattr(config, "position_embedding_type", "") == "learned"
    grid = config.grid if learned or getattr(config, "use_absolute_embeddings", False) else None
    return grid, pair(config.patch_size), config.num_channels, getattr(config, "table_windows", None)


def with_sizes_of(old_config, new_config):
    """Returns a copy of `new_config` that tables, patches and numbers of `old_config` fit."""
    config = copy.deepcopy(new_config)
    names = SIZES if pair(new_config.patch_size) == pair(old_config.patch_size) else (*SIZES, "encoder_stride")
    for name in (*names, "dtype"):
        if hasattr(old_config, name):
            setattr(config, name, getattr(old_config, name))
    return config


def fitted(old_config, new_config):
    """Returns a copy of `new_config` completed with what weights of `old_config` need at its sizes.

    A new `window_size` given as one int is never larger than the grid of a stage, as in Microsoft's code. In Swin v2
    each stage whose window changes remembers the old one in `pretrained_window_sizes` where that is 0: Swin Transformer
    V2 (2022), section 3.3. A stride of the masked-image decoder that followed from the patch follows from the new one.
    """
    config = copy.deepcopy(new_config)
    if pair(config.patch_size) != pair(old_config.patch_size):
        strides = [pair(getattr(c, "total_stride", c.patch_size))[0] for c in (old_config, config)]
        if config.encoder_stride == old_config.encoder_stride == strides[0]:
            config.encoder_stride = strides[1]
    if hasattr(config, "pretrained_window_sizes"):
        config.pretrained_window_sizes = _reference_windows(config, old_config)
    elif hasattr(config, "window_size") and config.window_size != old_config.window_size:
        config.window_size = _windows_within_grids(config)
    return config


def _reference_windows(config, old_config) -> list:
    windows = list(config.pretrained_window_sizes)
    stages = zip(config.stage_specs(), old_config.stage_specs(), strict=False)
    for stage, (new, old) in enumerate(stages):
        reference = old.blocks[0].reference_window
        if not windows[stage] and new.blocks[0].window != reference:
            windows[stage] = _one_int_if_square(reference)
    return windows


def _windows_within_grids(config) -> int | list:
    if not isinstance(config.window_size, int) or config.partition_rule not in ("clamp", "square"):
        return config.window_size
    grids = [cover(config.grid, (2**stage, 2**stage)) for stage in range(len(config.depths))]
    if config.partition_rule == "square":
        grids = [(min(grid), min(grid)) for grid in grids]
    windows = [_one_int_if_square(tuple(min(side, config.window_size) for side in grid)) for grid in grids]
    return config.window_size if all(window == config.window_size for window in windows) else windows


def _one_int_if_square(window: tuple[int, int]) -> int | list[int]:
    return window[0] if window[0] == window[1] else list(window)
