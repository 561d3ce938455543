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
"""The arrays of explain.py as a picture: what each block looks at, and where the answer comes from."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from .explain import AttentionMap, rollout
from .pictures import BLUE, GRID, MUTED, ORANGE, STYLE


# What attends is blue, what speaks for an answer is orange, here and on the page.
ATTENTION, EVIDENCE = BLUE, ORANGE
COLUMNS = 6
# Width of a panel, and what stands above it, in inches.
SIDE, HEADING = 2.05, 0.42
# The few largest values of a map are cut off, or they alone would be seen.
BRIGHTEST = 99.5


def ramp(colour: str) -> LinearSegmentedColormap:
    """Return a scale from nothing to a colour, to be laid over a picture."""
    return LinearSegmentedColormap.from_list("heat", [(*to_rgb(colour), 0.0), (*to_rgb(colour), 0.92)])


def looked_at(attention: AttentionMap) -> np.ndarray:
    """Return (H, W): what the class token attends to, or what all tokens do where there is none; mean of the heads."""
    height, width = attention.grid
    maps = attention.attended(height * width) if attention.class_token else attention.received()
    return maps.mean(0)


def overlay(
    axes: Axes, picture: Image.Image, heat: np.ndarray, stride: tuple[int, int], colour: str = ATTENTION
) -> None:
    """Draw a map (H, W), of tokens with `stride` pixels each, over the picture; the few largest values look alike."""
    faded = 0.45 * np.asarray(picture.convert("L"), dtype=np.float32) / 255 + 0.55
    axes.imshow(faded, cmap="gray", vmin=0, vmax=1)
    extent = (-0.5, heat.shape[1] * stride[1] - 0.5, heat.shape[0] * stride[0] - 0.5, -0.5)
    least, most = heat.min(), np.percentile(heat, BRIGHTEST)
    most = most if most > least else heat.max()
    axes.imshow(heat, cmap=ramp(colour), vmin=least, vmax=most, extent=extent, interpolation="nearest")
    # The last tokens may reach beyond the picture.
    axes.set(xlim=(-0.5, picture.width - 0.5), ylim=(picture.height - 0.5, -0.5), xticks=[], yticks=[])
    axes.grid(False)


def explanation(
    picture: Image.Image, maps: Sequence[AttentionMap], evidence: np.ndarray | None = None, answer: str = ""
) -> Figure:
    """Return the picture as the model saw it, where `answer` comes from, and what every block looks at.

    `evidence` is a class map (H, W) of the last block, None for a model without a classifier; a ViT has its rollout,
    too.
    """
    rows = 1 + -(-len(maps) // COLUMNS)
    height = SIDE * picture.height / picture.width + HEADING
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(SIDE * COLUMNS + 0.3, height * rows + 0.3), dpi=110, layout="constrained")
        panels = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        _first_row(panels[0], picture, maps, evidence, answer)
        for axes, attention in zip(panels[1:].flat, maps, strict=False):
            axes.set_axis_on()
            overlay(axes, picture, looked_at(attention), attention.stride)
            shifted = attention.layout is not None and any(attention.layout.shift)
            grid = f"{attention.grid[0]}x{attention.grid[1]}" + (", shifted" if shifted else "")
            axes.set_xlabel(grid, size=9, labelpad=3)
            _heading(axes, attention.name)
    return figure


def _first_row(
    panels: Sequence[Axes],
    picture: Image.Image,
    maps: Sequence[AttentionMap],
    evidence: np.ndarray | None,
    answer: str,
) -> None:
    free = iter(panels)
    axes = next(free)
    axes.set_axis_on()
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    _heading(axes, "what the model sees")
    drawn = [("class map", evidence, EVIDENCE)] if evidence is not None else []
    if maps[0].layout is None:
        drawn.append(("rollout of all blocks", rollout(maps), ATTENTION))
    for heading, heat, colour in drawn:
        axes = next(free)
        axes.set_axis_on()
        overlay(axes, picture, heat, maps[-1].stride, colour)
        _heading(axes, heading)
    looks = "what the class token attends to" if maps[0].class_token else "how much attention each token gets"
    lines = [
        f"Below, block by block: {looks}, mean of the heads,",
        "each map from its least value to nearly its largest.",
    ]
    axes = next(free)
    place = {"transform": axes.transAxes, "va": "top", "in_layout": False}
    axes.text(0, 1, answer, size=13, weight="bold", **place)
    axes.text(0, 0.82, "\n".join(lines), size=10, color=MUTED, linespacing=1.5, **place)


def _heading(axes: Axes, text: str) -> None:
    axes.set_title(text, size=10, pad=5, loc="left")
    axes.spines[:].set(visible=True, color=GRID)
