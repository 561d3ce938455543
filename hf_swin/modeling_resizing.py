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
# Shapes: H W grid of patches, C channels, A heads.
"""Weights of one size made to fit another: positions, bias tables, patches, channels. Pure functions of tensors."""

import torch
from torch.nn import functional as F

from .configuration_shared import pair


# rule -> how torch.nn.functional.interpolate follows it, and who does so
POSITION_RULES = {
    "bicubic": {"mode": "bicubic"},  # transformers, DeiT, MAE, Microsoft
    "bicubic_antialias": {"mode": "bicubic", "antialias": True},  # timm, DINOv2 with registers
    "bicubic_offset": {"mode": "bicubic"},  # the original code of DINO and of DINOv2 without registers
    "bicubic_align_corners": {"mode": "bicubic", "align_corners": True},  # torchvision
    "bilinear_align_corners": {"mode": "bilinear", "align_corners": True},  # Google: scipy.ndimage.zoom(order=1)
}
# rule -> degree of the spline on the geometric grid
SPLINE_DEGREES = {
    "geometric_linear": 1,  # timm
    "geometric_cubic": 3,  # SimMIM and BEiT; timm with TIMM_USE_SCIPY_INTERP=1
}


def resize_positions(
    table_1NC: torch.Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], rule: str
) -> torch.Tensor:
    """Returns a table of positions (1, N, C) for another grid, interpolated in float32 by a rule of POSITION_RULES.

    Raises ValueError for a table that is not of `old_grid`.
    """
    if tuple(old_grid) == tuple(new_grid):
        return table_1NC
    if table_1NC.shape[1] != old_grid[0] * old_grid[1]:
        raise ValueError(f"{table_1NC.shape[1]} positions are no grid of {old_grid}; see image_size and patch_size")
    image = table_1NC.float().unflatten(1, tuple(old_grid)).permute(0, 3, 1, 2)
    if rule == "bicubic_offset":  # as scales, a tenth of a patch too large: they move every coordinate that is read
        target = {"scale_factor": tuple((new + 0.1) / old for old, new in zip(old_grid, new_grid, strict=True))}
    else:
        target = {"size": tuple(new_grid)}
    image = F.interpolate(image, **target, **POSITION_RULES[rule])
    return image.permute(0, 2, 3, 1).flatten(1, 2).to(table_1NC.dtype)


def geometric_places(old_side: int, new_side: int) -> torch.Tensor:
    """Returns where the offsets of a window stand among those of another one, (2·old_side-1,) float64.

    The steps between them grow geometrically, the first being 1, so that near offsets keep their bias and the farthest
    ones meet: BEiT (2022), fine-tuning code, and after it SimMIM and timm.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:  # the publishers' bounds and tolerance, which show in the last places
        ratio = (low + high) / 2
        reach = (1 - ratio ** (old_side - 1)) / (1 - ratio)
        low, high = (low, ratio) if reach > new_side - 1 else (ratio, high)
    places = (ratio ** torch.arange(old_side - 1, dtype=torch.float64)).cumsum(0)
    return torch.cat([-places.flip(0), places.new_zeros(1), places])


def b_splines(points: torch.Tensor, knots: torch.Tensor, degree: int) -> torch.Tensor:
    """Returns the B-splines on some knots at some points, (points, knots-degree-1), constant beyond the last knot.

    The recursion of Cox and de Boor (1972).
    """
    points = points.clamp(knots[0], knots[-1])[:, None]
    basis = ((knots[:-1] <= points) & (points < knots[1:])).to(knots.dtype)
    basis[:, len(knots) - degree - 2] += (points[:, 0] == knots[-1]).to(knots.dtype)  # the last interval is closed
    for order in range(1, degree + 1):
        spans = knots[order:] - knots[:-order]
        spans = spans.where(spans > 0, 1.0)  # nothing lives on an empty one
        rising = (points - knots[: -order - 1]) / spans[:-1]
        falling = (knots[order + 1 :] - points) / spans[1:]
        basis = rising * basis[:, :-1] + falling * basis[:, 1:]
    return basis


def spline_weights(places: torch.Tensor, targets: torch.Tensor, degree: int) -> torch.Tensor:
    """Returns the matrix (targets, places) that interpolates values at `places` by a spline of odd degree.

    Knots are those of FITPACK (Dierckx, 1993), which SciPy calls: the cubic one leaves out the second place and the
    last but one. Raises ValueError for too few places.
    """
    if len(places) <= degree:
        raise ValueError(
            f"a spline of degree {degree} needs a window of {degree // 2 + 2} tokens a side, got {len(places) // 2 + 1}"
            "; set bias_resizing='bicubic'"
        )
    half = (degree + 1) // 2
    ends = [end.repeat(degree + 1) for end in (places[0], places[-1])]
    knots = torch.cat([ends[0], places[half : len(places) - half], ends[1]])
    return torch.linalg.solve(b_splines(places, knots, degree).T, b_splines(targets, knots, degree).T).T


def resize_bias_table(
    table: torch.Tensor, old_window: tuple[int, int], new_window: tuple[int, int], rule: str
) -> torch.Tensor:
    """Returns a relative position bias table ((2h-1)·(2w-1), A) for another window, (height, width) in tokens.

    `bicubic` interpolates the grid of offsets as an image (Microsoft's Swin code); the rules of SPLINE_DEGREES take the
    old offsets to geometric places first. Raises ValueError for a table that is not of `old_window`.
    """
    if tuple(old_window) == tuple(new_window):
        return table
    old_sides, new_sides = (tuple(2 * side - 1 for side in window) for window in (old_window, new_window))
    if table.shape[0] != old_sides[0] * old_sides[1]:
        raise ValueError(f"a bias table of {table.shape[0]} offsets is not of a window of {old_window}")
    offsets_AHW = table.float().T.unflatten(1, old_sides)
    if rule == "bicubic":
        resized_AHW = F.interpolate(offsets_AHW[None], size=new_sides, mode="bicubic")[0]
    else:
        rows, columns = (
            spline_weights(
                geometric_places(old, new), torch.arange(1 - new, new, dtype=torch.float64), SPLINE_DEGREES[rule]
            ).to(table.device)
            for old, new in zip(old_window, new_window, strict=True)
        )
        resized_AHW = rows @ offsets_AHW.double() @ columns.T
    return resized_AHW.flatten(1).T.contiguous().to(table.dtype)


def resize_patches(weight: torch.Tensor, new_patch: tuple[int, int]) -> torch.Tensor:
    """Returns a patch embedding (C, channels, height, width) for patches of another size in pixels.

    A patch enlarged by bicubic interpolation with antialiasing then gives the tokens it gave before; of a shrunk one
    they are the nearest in the least squares: FlexiViT (2023), section 3.4, with the interpolation of timm.
    """
    old_patch = tuple(weight.shape[-2:])
    if old_patch == tuple(new_patch):
        return weight
    pixels = torch.eye(old_patch[0] * old_patch[1], device=weight.device).unflatten(1, (1, *old_patch))
    resize = F.interpolate(pixels, size=tuple(new_patch), mode="bicubic", antialias=True).flatten(1)
    resized = weight.float().flatten(2) @ torch.linalg.pinv(resize).T
    return resized.unflatten(2, tuple(new_patch)).to(weight.dtype)


def adapt_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Returns a patch embedding (C, channels, height, width) for images of another number of channels.

    One channel gets the sum of all, so that a grey image gives what it gave as RGB; more are repeated in their order
    and scaled to keep their sum (timm). Raises ValueError for what is no such weight or number.
    """
    if weight.ndim != 4 or channels < 1:
        raise ValueError(f"a patch embedding {tuple(weight.shape)} cannot be adapted to {channels} channels")
    old_channels = weight.shape[1]
    if channels == old_channels:
        return weight
    if channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)
    repeated = weight.float().repeat(1, -(-channels // old_channels), 1, 1)[:, :channels]
    return (repeated * (old_channels / channels)).to(weight.dtype)


@torch.no_grad()
def adapted(state_dict: dict[str, torch.Tensor], old_config, new_config) -> dict[str, torch.Tensor]:
    """Returns the tensors of a model with `old_config` in the shapes that `new_config` needs, by its rules.

    Keys are the names in memory, with or without the base model's prefix; what fits already is passed on untouched.
    Raises ValueError for a masked-image decoder, which no publisher resizes.
    """
    return {key: _adapted_tensor(key, tensor, old_config, new_config) for key, tensor in state_dict.items()}


def _adapted_tensor(key: str, tensor: torch.Tensor, old_config, new_config) -> torch.Tensor:
    if key.endswith("embeddings.position_embeddings"):
        before = getattr(old_config, "num_positioned_tokens", 0)
        patches_1NC = tensor[:, before:]
        resized_1NC = resize_positions(patches_1NC, old_config.grid, new_config.grid, new_config.position_resizing)
        return tensor if resized_1NC is patches_1NC else torch.cat([tensor[:, :before], resized_1NC], dim=1)
    if key.endswith(".relative_position_bias_table"):
        stage = int(key.rpartition("stages.")[2].partition(".")[0])
        old_window, new_window = old_config.table_windows[stage], new_config.table_windows[stage]
        return resize_bias_table(tensor, old_window, new_window, new_config.bias_resizing)
    if key.endswith("patch_embeddings.projection.weight"):
        return resize_patches(adapt_channels(tensor, new_config.num_channels), pair(new_config.patch_size))
    if key.startswith("decoder.projection."):
        outputs = new_config.encoder_stride**2 * new_config.num_channels
        if tensor.shape[0] != outputs:
            raise ValueError(
                f"no rule makes a masked-image decoder of {tensor.shape[0]} outputs one of {outputs}; keep patch_size "
                "and num_channels, open another class, or start a new decoder with ignore_mismatched_sizes=True"
            )
    return tensor
