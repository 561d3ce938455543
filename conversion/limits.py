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
"""What a target cannot hold, as reasons for the user."""

from typing import Any

from hf_swin import HfSwinConfig
from hf_swin.configuration_shared import pair


# The ViT of the paper, as every class without variants computes it.
PAPER_VIT: dict[str, Any] = {
    "position_embedding_type": "learned",
    "pooling": "class",
    "norm_after_pooling": False,
    "use_class_token": True,
    "use_distillation_token": False,
    "num_register_tokens": 0,
    "layerscale_value": None,
    "use_swiglu_ffn": False,
}


def holds(config: Any, allowed: dict[str, Any]) -> None:
    """Raises ValueError for the first number of a config that a format has no place for; a tuple lists several."""
    for name, values in allowed.items():
        value = getattr(config, name)
        if name == "pooling" and not config.architectures[0].endswith(("Classification", "WithTeacher")):
            continue  # a body pools nothing
        if name == "pooling" and value == "mean" and config.use_class_token and not config.norm_after_pooling:
            raise ValueError("its file would not tell that the mean of the patches is taken and not the class token")
        if value not in (values if isinstance(values, tuple) else (values,)):
            can = " or ".join(map(repr, values)) if isinstance(values, tuple) else repr(values)
            raise ValueError(f"it computes with {name}={can} and this model with {value!r}")


def windows_fit(config: HfSwinConfig) -> None:
    """Raises ValueError for a window larger than its grid: tables of such a stage belong to a shrunk window."""
    for number, stage in enumerate(config.stage_specs(), start=1):
        window, grid = stage.blocks[0].window, stage.blocks[0].home_grid
        if window[0] > grid[0] or window[1] > grid[1]:
            raise ValueError(
                f"it shrinks windows to the grid, and stage {number} has windows {window} on a grid {grid}"
            )


def square_windows(config: HfSwinConfig) -> None:
    """Raises ValueError for windows that are no squares."""
    windows = [stage.blocks[0].window for stage in config.stage_specs()]
    if any(height != width for height, width in windows):
        raise ValueError(f"its windows are squares and this model has {windows}")


def one_window(config: HfSwinConfig) -> int:
    """Returns the window that all stages have; raises ValueError for others and for stages too small for it."""
    square_windows(config)
    windows = {stage.blocks[0].window[0] for stage in config.stage_specs()}
    if len(windows) > 1:
        raise ValueError(
            f"it has one window for all stages and cannot hold shrunk ones; this model has {sorted(windows)}"
        )
    windows_fit(config)
    return windows.pop()


def square_patches(config: Any) -> None:
    """Raises ValueError for patches or images that are no squares."""
    for name in ("patch_size", "image_size"):
        height, width = pair(getattr(config, name))
        if height != width:
            raise ValueError(f"its {name} is a square and this model has {(height, width)}")
