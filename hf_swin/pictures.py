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
"""What a run looks like: its curves, confusion matrix, calibration and predictions, as files and inside a page."""

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb as rgb_of
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from .metrics import ExpectedCalibrationError


INK, MUTED, GRID, PAPER = "#1b1b1a", "#5f5e5a", "#e4e3dd", "#fcfcfb"
BLUE, ORANGE, RED = "#2a78d6", "#e8833a", "#d63a39"
# Inside a page the colours are the page's own, which is light or dark as its reader likes it.
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", ORANGE: "orange", RED: "red"}
STYLE = {
    "figure.facecolor": PAPER,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
    "axes.titlepad": 12,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "hf_swin",  # the same run, the same page
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$5" and another "5$"
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}
# Class counts up to which every cell of the confusion matrix has room for its number.
NUMBERED_CLASSES = 40
# What is plotted as the score of an epoch: the first of these that was measured.
SCORES = {"eval_accuracy": "Accuracy", "eval_mean_average_precision": "Mean average precision"}
BINS = ExpectedCalibrationError.bins
# Sides in pixels: up to the first, a picture goes into a page as it is; a larger one is reduced to the second.
EXACT_SIDE, REDUCED_SIDE = 128, 288

Drawing = Callable[[Axes], None]


@dataclass(frozen=True)
class Prediction:
    """One image with its true class, the most probable class, and the probability of the latter."""

    image: Image.Image
    truth: str
    predicted: str
    probability: float

    @property
    def correct(self) -> bool:
        return self.truth == self.predicted


def figure_of(drawings: Sequence[Drawing], width: float, height: float) -> Figure:
    """Return a figure with one panel per drawing, side by side; `width` and `height` of a panel in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * len(drawings), height), dpi=120, layout="constrained")
        for axes, draw in zip(figure.subplots(1, len(drawings), squeeze=False).flat, drawings, strict=True):
            draw(axes)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure to a file, under another name first, so that a reader never finds half of it."""
    partial = path.with_name(f"partial-{path.name}")
    try:
        with matplotlib.rc_context(STYLE):
            figure.savefig(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def svg_of(figure: Figure, title: str) -> str:
    """Return a figure as an SVG element for a page: its text is text, its colours are the variables of the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", dpi=200, transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z]\w*_\d+"', "", text)  # "axes_1" is in every figure, and a page has several
    for colour, variable in VARIABLES.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    points = 72 * figure.get_figwidth()
    look = f'role="img" aria-label="{title}" style="max-width: {1.2 * points:.0f}pt; min-width: {0.62 * points:.0f}pt"'
    return re.sub(r'<svg (.*?)width="[^"]*"(.*?)height="[^"]*"', rf"<svg {look} \1\2", text, count=1, flags=re.DOTALL)


def curves(history: Sequence[dict[str, Any]]) -> dict[str, Drawing]:
    """Return by title what `trainer.state.log_history` has to draw against epochs: loss, score, learning rate."""
    trained = [entry for entry in history if "loss" in entry and "epoch" in entry]
    tested = [entry for entry in history if "eval_loss" in entry and "epoch" in entry]
    score = next((key for key in SCORES if tested and key in tested[0]), None)
    found: dict[str, Drawing] = {}
    if trained:
        found["Loss"] = lambda axes: _losses(axes, trained, tested)
    if score:
        found[SCORES[score]] = lambda axes: _scores(axes, tested, score)
    if trained and "learning_rate" in trained[0]:
        found["Learning rate"] = lambda axes: _rates(axes, trained)
    return found


def _losses(axes: Axes, trained: list[dict[str, Any]], tested: list[dict[str, Any]]) -> None:
    _line(axes, trained, "loss", BLUE, "training images")
    if tested:
        _line(axes, tested, "eval_loss", ORANGE, "unseen images", "--")
        axes.legend()
    axes.set(title="Loss")


def _scores(axes: Axes, tested: list[dict[str, Any]], key: str) -> None:
    tested = [{**entry, key: 100 * entry[key]} for entry in tested if key in entry]
    _line(axes, tested, key, ORANGE, None, "--")
    axes.set(title=SCORES[key], ylabel="% on unseen images", ylim=(0, 104))
    last = tested[-1]
    place = {"xytext": (-4, -12), "textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate(f"{last[key]:.1f} %", (last["epoch"], last[key]), weight="bold", **place)


def _rates(axes: Axes, trained: list[dict[str, Any]]) -> None:
    _line(axes, [entry for entry in trained if "learning_rate" in entry], "learning_rate", BLUE, None)
    axes.set(title="Learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _line(
    axes: Axes, entries: list[dict[str, Any]], key: str, colour: str, label: str | None, dashes: str = "-"
) -> None:
    epochs, values = [entry["epoch"] for entry in entries], [entry[key] for entry in entries]
    # A run of one or two epochs has no line to speak of, only its points.
    marker = "o" if len(epochs) < 15 else None
    axes.plot(epochs, values, dashes, color=colour, label=label, linewidth=2, marker=marker, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # A single point has no extent of its own; curves are read from zero.
    axes.set(xlabel="epoch", xlim=(0, 1.04 * axes.dataLim.x1), ylim=(0, 1.08 * axes.dataLim.y1 or 1))


def training_curve(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw loss, score and learning rate against epochs, from `trainer.state.log_history`, if it has any epochs."""
    drawings = list(curves(history).values())
    if drawings:
        save_png(figure_of(drawings, 5, 4.2), path)


def confusion_matrix(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Draw how often each true class (rows) was given each class (columns): blue where right, red where wrong.

    `counts` has shape (classes, classes); up to 40 classes every cell shows its number.
    """
    side = 1.6 + 0.44 * len(labels) if len(labels) <= NUMBERED_CLASSES else 7.5
    return figure_of([lambda axes: _confusion(axes, counts, labels)], side + 0.5, side)


def _confusion(axes: Axes, counts: np.ndarray, labels: Sequence[str]) -> None:
    size = len(labels)
    diagonal = np.eye(size, dtype=bool)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    numbered = size <= NUMBERED_CLASSES
    # Strength is opacity, so that the same cells suit light and dark paper, and numbers on them stay readable.
    faint = 0.08 if numbered else 0.3
    strength = np.where(diagonal, faint + 0.55 * share, np.minimum(faint + 1.4 * share, 0.63))
    cells = np.zeros((size, size, 4))
    cells[..., :3] = np.where(diagonal[..., None], rgb_of(BLUE), rgb_of(RED))
    cells[..., 3] = np.where(counts > 0, strength, 0)
    axes.imshow(cells, interpolation="none" if numbered else "auto")  # thousands of cells: blend, lose none
    axes.grid(False)
    if numbered:
        for row, column in np.argwhere(counts > 0):
            weight = "normal" if row == column else "bold"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", weight=weight)
        names = [short(label) for label in labels]
        axes.set_xticks(range(size), names, rotation=0 if max(map(len, names)) < 4 else 90)
        axes.set_yticks(range(size), names)
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor")
    axes.spines[:].set_visible(not numbered)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted class", ylabel="true class")


def calibration(confidence: np.ndarray, right: np.ndarray) -> Figure:
    """Draw how often answers are right, by how sure the model is of them; both of shape (images,)."""
    return figure_of([lambda axes: _calibration(axes, confidence, right)], 5.4, 4.6)


def _calibration(axes: Axes, confidence: np.ndarray, right: np.ndarray) -> None:
    members = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    counts = np.bincount(members, minlength=BINS)
    filled = counts > 0
    middle, number = 100 * (np.flatnonzero(filled) + 0.5) / BINS, counts[filled]
    share = 100 * np.bincount(members, right, BINS)[filled] / number
    sure = 100 * np.bincount(members, confidence, BINS)[filled] / number
    axes.plot([0, 100], [0, 100], ":", color=MUTED, linewidth=1.5, label="as sure as right")
    axes.bar(middle, share, 0.9 * 100 / BINS, color=BLUE, alpha=0.55, label="right")
    axes.plot(sure, share, "o", color=ORANGE, markersize=6, label="mean probability and share right")
    for x, count in zip(middle, number, strict=True):
        axes.text(x, 103, compact(int(count)), ha="center", size=9, color=MUTED)
    axes.text(0, 110, "images", ha="left", size=9, color=MUTED)
    axes.set(xlim=(0, 100), ylim=(0, 116), xlabel="probability of the answer, %", ylabel="answers that are right, %")
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.9), fontsize=9)


def compact(number: int) -> str:
    """Write a count in at most four characters: 87, 1.2k, 56k."""
    return str(number) if number < 1000 else f"{number / 1000:.1f}k" if number < 9950 else f"{number / 1000:.0f}k"


def prediction_sheet(predictions: Sequence[Prediction], path: Path, title: str, columns: int = 8) -> None:
    """Draw images in a grid, each with its answer and probability; a wrong one is framed and names the truth."""
    rows = -(-len(predictions) // columns)
    columns = min(columns, len(predictions))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(1.45 * columns, 5), 1.9 * rows + 0.6), dpi=120, layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=13)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, prediction in zip(grid.flat, predictions, strict=False):
            _picture(axes, prediction)
        figure.savefig(path)


def _picture(axes: Axes, prediction: Prediction) -> None:
    axes.set_axis_on()
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.imshow(prediction.image.convert("RGB"), interpolation="nearest")
    right = prediction.correct
    axes.spines[:].set(visible=True, color=GRID if right else RED, linewidth=1 if right else 3)
    answer = f"{short(prediction.predicted)}  {100 * prediction.probability:.0f} %"
    look = {"color": INK, "weight": "normal"} if right else {"color": RED, "weight": "bold"}
    axes.set_title(answer, loc="center", size=11, pad=5, **look)
    if not right:
        axes.set_xlabel(f"truth: {short(prediction.truth)}", color=RED, size=10, labelpad=4)


def short(name: str, length: int = 12) -> str:
    """Cut a name that is too long for its place."""
    return name if len(name) <= length else name[: length - 1] + "…"


def data_uri(image: Image.Image) -> str:
    """Return a picture as text for a page: a small one to the pixel (PNG), a larger one reduced (JPEG)."""
    image, kind = image.convert("RGB"), "png"
    if max(image.size) > EXACT_SIDE:
        kind = "jpeg"
        image.thumbnail((REDUCED_SIDE, REDUCED_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
