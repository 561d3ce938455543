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
"""What a run shows: lines on the screen, a training curve, a confusion matrix, and a sheet of predictions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm
from transformers import ProgressCallback

from .data import ImageData


INK, MUTED, GRID, PAPER = "#1b1b1a", "#5f5e5a", "#e4e3dd", "#fcfcfb"
BLUE, ORANGE, RED = "#2a78d6", "#e8833a", "#d63a39"
STYLE = {
    "figure.facecolor": PAPER,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
    "axes.titlepad": 12,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "font.size": 11,
    "text.color": INK,
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
FILES = {
    "model.safetensors": "the weights, with config.json and preprocessor_config.json beside them",
    "README.md": "the model card",
    "metrics.json": "every number of this run",
    "training_curve.png": "loss and accuracy per epoch",
    "confusion_matrix.png": "which class was taken for which",
    "predictions.png": "unseen images with prediction and truth",
}
# Class counts up to which every cell of the confusion matrix has room for its number.
NUMBERED_CLASSES = 40


class EpochTable(ProgressCallback):
    """A progress bar over all steps, and one line of a table per epoch."""

    def on_train_begin(self, args, state, control, **kwargs):
        # Without a terminal the bar would fill a log file, so there it stays away.
        self.training_bar = tqdm(total=state.max_steps, initial=state.global_step, dynamic_ncols=True, disable=None)
        self.current_step = state.global_step
        self.started = time.monotonic()
        self.training_bar.write("epoch   train loss   test loss   accuracy   macro-F1   seconds")

    def on_prediction_step(self, args, state, control, **kwargs):
        """No second bar: evaluation takes a moment."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.loss = logs["loss"]
        if self.training_bar is not None and "eval_loss" in logs:
            self.training_bar.write(
                f"{logs['epoch']:5.0f}   {self.loss:10.4f}   {logs['eval_loss']:9.4f}   {logs['eval_accuracy']:8.2%}"
                f"   {logs['eval_macro_f1']:8.4f}   {time.monotonic() - self.started:7.0f}"
            )


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


def training_curve(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw loss and accuracy against epochs from `trainer.state.log_history`."""
    trained = [(entry["epoch"], entry["loss"]) for entry in history if "loss" in entry]
    tested = [entry for entry in history if "eval_loss" in entry]
    epochs = [entry["epoch"] for entry in tested]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.2), dpi=120, layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        _line(loss, *zip(*trained, strict=True), BLUE, "training images")
        _line(loss, epochs, [entry["eval_loss"] for entry in tested], ORANGE, "unseen images")
        loss.set(title="Loss", xlabel="epoch", ylabel="cross-entropy with label smoothing", ylim=(0, None))
        loss.legend(loc="upper right")
        scores = [100 * entry["eval_accuracy"] for entry in tested]
        _line(accuracy, epochs, scores, ORANGE, None)
        accuracy.set(title="Accuracy on unseen images", xlabel="epoch", ylabel="correct, %", ylim=(0, 102))
        place = {"xytext": (-4, -12), "textcoords": "offset points", "ha": "right", "va": "top"}
        accuracy.annotate(f"{scores[-1]:.1f} %", (epochs[-1], scores[-1]), weight="bold", **place)
        figure.savefig(path)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], color: str, label: str | None) -> None:
    # A run of one or two epochs has no line to speak of, only its points.
    axes.plot(x, y, color=color, label=label, linewidth=2, marker="o" if len(x) < 15 else None, markersize=5)
    axes.xaxis.get_major_locator().set_params(integer=True)


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], labels: Sequence[str], path: Path) -> None:
    """Draw how often each true class (rows) was given each class (columns): blue where right, red where wrong."""
    size = len(labels)
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (np.asarray(truth), np.asarray(predicted)), 1)
    diagonal = np.eye(size, dtype=bool)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with matplotlib.rc_context(STYLE):
        side = 2.2 + 0.5 * min(size, NUMBERED_CLASSES)
        figure = Figure(figsize=(side + 0.6, side), dpi=120, layout="constrained")
        axes = figure.subplots()
        axes.grid(False)
        axes.imshow(np.where(diagonal & (counts > 0), share, np.nan), cmap="Blues", vmin=-0.1, vmax=1.1)
        axes.imshow(np.where(~diagonal & (counts > 0), share, np.nan), cmap="Reds", vmin=-0.15, vmax=0.6)
        if size <= NUMBERED_CLASSES:
            _numbers(axes, counts, share, diagonal)
            axes.set_xticks(range(size), labels, rotation=0 if max(map(len, labels)) < 4 else 90)
            axes.set_yticks(range(size), labels)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        right = int(counts[diagonal].sum())
        axes.set(xlabel="predicted class", ylabel="true class")
        percent = 100 * right / max(counts.sum(), 1)
        axes.set_title(f"{right} of {counts.sum()} unseen images right ({percent:.1f} %)", pad=12)
        figure.savefig(path)


def _numbers(axes: Axes, counts: np.ndarray, share: np.ndarray, diagonal: np.ndarray) -> None:
    for row, column in np.argwhere(counts >= 0):
        count = counts[row, column]
        light = count and share[row, column] > (0.55 if diagonal[row, column] else 0.3)
        color = PAPER if light else INK if count else "#c9c8c2"
        weight = "bold" if count and not diagonal[row, column] else "normal"
        axes.text(column, row, str(count) if count else "·", ha="center", va="center", color=color, weight=weight)


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
    answer = f"{_short(prediction.predicted)}  {100 * prediction.probability:.0f} %"
    look = {"color": INK, "weight": "normal"} if right else {"color": RED, "weight": "bold"}
    axes.set_title(answer, loc="center", size=11, pad=5, **look)
    if not right:
        axes.set_xlabel(f"truth: {_short(prediction.truth)}", color=RED, size=10, labelpad=4)


def _short(name: str, length: int = 12) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def announce(images: ImageData, family: str, init: str | Path | None, out: Path) -> None:
    """Print what is about to happen."""
    start = f"weights of {init}" if init else "random weights"
    counts = f"{len(images.train)} training and {len(images.test)} test images, {len(images.labels)} classes"
    print(f"{images.name}: {counts}")
    if images.skipped:
        print(f"left out {len(images.skipped)} file(s) that are not images: {', '.join(images.skipped[:5])}")
    print(f"fine-tuning {family} from {start} into {out}", flush=True)


def summary(out: Path, shown: list[Prediction], facts: dict[str, Any]) -> None:
    """Print what came of it and where it is."""
    print("\nLoaded back with AutoModelForImageClassification and pipeline; unseen images:")
    for prediction in shown[:5]:
        mark = "right" if prediction.correct else f"wrong, it is {prediction.truth}"
        print(f"  {prediction.predicted:>12}  {prediction.probability:6.1%}  {mark}")
    print(f"\nTest accuracy {facts['accuracy']:.2%}, macro-F1 {facts['macro_f1']:.4f}, {facts['seconds']} s. Saved:")
    for name, meaning in FILES.items():
        print(f"  {out / name}  {meaning}")
