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
# Shapes: B batch, H W grid of tokens, C channels, N windows of one image, T tokens of one window.
"""Grid to windows and back: pad, roll, cut, and who may see whom. Pure functions of integers, without parameters."""

from functools import lru_cache, wraps
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


class WindowLayout(NamedTuple):
    """How one block cuts one grid into windows; every entry is (height, width) in tokens."""

    grid: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """The grid, rounded up to whole windows."""
        return tuple(-(-size // side) * side for size, side in zip(self.grid, self.window, strict=True))


def window_layout(
    grid: tuple[int, int], window: tuple[int, int], shifted: bool, rule: str, home_grid: tuple[int, int]
) -> WindowLayout:
    """Returns the windows of a block on a grid; nothing of it is remembered, so one image never changes the next.

    The rules differ only where a window is not smaller than the grid. `clamp` (timm): it shrinks to the grid along
    that axis, which is not shifted. `square` (Microsoft, transformers Swin): if one axis is that small, the window
    becomes a square of its size and nothing is shifted. `pad` (torchvision): the grid is padded up to the window, that
    axis is not shifted. `fixed` (transformers Swin v2): as `pad`, but `home_grid` decides what is shifted. `always`
    (detection backbones): as `pad`, and shifted all the same. Swin Transformer (2021), section 3.2.
    """
    if rule == "square" and any(size <= side for size, side in zip(grid, window, strict=True)):
        return WindowLayout(grid, (min(grid), min(grid)), (0, 0))
    deciding = home_grid if rule == "fixed" else grid
    shift = tuple(
        side // 2 if shifted and (rule == "always" or size > side) else 0
        for size, side in zip(deciding, window, strict=True)
    )
    if rule == "clamp":
        window = tuple(min(size, side) for size, side in zip(grid, window, strict=True))
    return WindowLayout(grid, window, shift)


def pad(x_BHWC: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """Returns a grid (B, H, W, C) with zeros at its end, up to whole windows."""
    below, right = layout.padded[0] - layout.grid[0], layout.padded[1] - layout.grid[1]
    return F.pad(x_BHWC, (0, 0, 0, right, 0, below)) if below or right else x_BHWC


def crop(x_BHWC: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """Returns a padded grid without what `pad` added."""
    return x_BHWC[:, : layout.grid[0], : layout.grid[1]]


def partition(x_BHWC: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """Returns the windows (B·N, T, C) of a grid (B, H, W, C): padded with zeros at the end, then rolled, then cut.

    The order is that of the original detection code and of torchvision. A window's row of w tokens stays one contiguous
    run of w·C numbers, so four dimensions suffice.
    """
    x_BHWC = pad(x_BHWC, layout)
    if any(layout.shift):
        x_BHWC = torch.roll(x_BHWC, (-layout.shift[0], -layout.shift[1]), dims=(1, 2))
    batch, padded_height, padded_width, channels = x_BHWC.shape
    window_height, window_width = layout.window
    rows, columns = batch * (padded_height // window_height), padded_width // window_width
    cut = x_BHWC.reshape(rows, window_height, columns, window_width * channels)
    return cut.transpose(1, 2).reshape(rows * columns, window_height * window_width, channels)


def unpartition(windows_NTC: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """Returns the grid (B, H, W, C) of windows (B·N, T, C): the exact inverse of `partition`."""
    padded_height, padded_width = layout.padded
    window_height, window_width = layout.window
    windows, _, channels = windows_NTC.shape
    columns = padded_width // window_width
    rows = windows // columns
    cut = windows_NTC.reshape(rows, columns, window_height, window_width * channels)
    batch = rows // (padded_height // window_height)
    x_BHWC = cut.transpose(1, 2).reshape(batch, padded_height, padded_width, channels)
    if any(layout.shift):
        x_BHWC = torch.roll(x_BHWC, layout.shift, dims=(1, 2))
    return crop(x_BHWC, layout)


def cached(function):
    """Remembers the tensors that geometry alone decides.

    Compilers trace the plain function, and so do tools that run models on fake tensors, which must not be remembered.
    What is kept is made outside inference mode, so that training may use what an earlier inference has cached.
    """

    @lru_cache(maxsize=64)
    def remembered(*args):
        with torch.inference_mode(False):
            return function(*args)

    @wraps(function)
    def wrapper(*args):
        traced = torch.compiler.is_compiling() or is_in_torch_dispatch_mode()
        return function(*args) if traced else remembered(*args)

    return wrapper


def region_ids(layout: WindowLayout, mask_padding: bool, device: torch.device) -> torch.Tensor:
    """Returns the region (padded height, padded width) of every token after the roll.

    Along each axis the roll leaves three runs that were no neighbours: nine regions in all (figure 4 of the paper).
    With `mask_padding` the padded tokens are a region of their own.
    """
    axis_ids, is_real = [], []
    for size, padded, side, shift in zip(layout.grid, layout.padded, layout.window, layout.shift, strict=True):
        place = torch.arange(padded, device=device)
        axis_ids.append((place >= padded - side).long() + (place >= padded - shift).long() if shift else place * 0)
        is_real.append((place + shift) % padded < size)
    ids_HW = axis_ids[0][:, None] * 3 + axis_ids[1][None, :]
    if mask_padding:
        ids_HW = ids_HW.masked_fill(~(is_real[0][:, None] & is_real[1][None, :]), 9)
    return ids_HW


@cached
def separated(layout: WindowLayout, mask_padding: bool, device: torch.device) -> torch.Tensor | None:
    """Returns which pairs of tokens of a window must not see each other, (N, 1, T, T) bool, or None if all may."""
    padding_matters = mask_padding and layout.padded != layout.grid
    if not (any(layout.shift) or padding_matters):
        return None
    ids_HW = region_ids(layout, mask_padding, device)
    uncut = WindowLayout(layout.padded, layout.window, (0, 0))
    ids_NT = partition(ids_HW[None, :, :, None], uncut).squeeze(-1)
    return ids_NT[:, None, :, None] != ids_NT[:, None, None, :]


@cached
def relative_index(window: tuple[int, int], table_window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Returns, for each pair of tokens (T, T), the row of the bias table made for `table_window` that holds its offset.

    Offsets are query minus key. A window smaller than the table's uses the middle of the table, with the same row for
    the same offset.
    """
    rows = torch.arange(window[0], device=device)
    columns = torch.arange(window[1], device=device)
    rows_T, columns_T = rows.repeat_interleave(window[1]), columns.repeat(window[0])
    row_offset = rows_T[:, None] - rows_T[None, :] + table_window[0] - 1
    column_offset = columns_T[:, None] - columns_T[None, :] + table_window[1] - 1
    return row_offset * (2 * table_window[1] - 1) + column_offset


@cached
def log_offsets(window: tuple[int, int], reference_window: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Returns every offset within a window, ((2h-1)·(2w-1), 2), on the log scale of Swin Transformer V2 (2022), eq. 4.

    An offset is first expressed in units of `reference_window`, so that 8 is its far edge, then compressed to
    sign(x)·log2(1 + |x|) / log2(8).
    """
    axes = []
    for side, reference in zip(window, reference_window, strict=True):
        offsets = torch.arange(1 - side, side, device=device, dtype=torch.float32)
        axes.append(offsets * 8 / max(reference - 1, 1))
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)
    return offsets.sign() * torch.log2(1 + offsets.abs()) / 3
