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
"""What a run shows: lines on the screen while it goes on, pictures and one page at its end."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import jinja2
import numpy as np
from markupsafe import Markup
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from tqdm.auto import tqdm
from transformers import ProgressCallback

from .card import TYPES
from .data import ImageData
from .inspection import describe
from .pictures import (
    Prediction,
    calibration,
    confusion_matrix,
    curves,
    data_uri,
    figure_of,
    prediction_sheet,
    save_png,
    short,
    svg_of,
    training_curve,
)
from .record import PICTURES, REPORT, SCORES, SPEEDS, counts_of, score_names
from .transforms import to_rgb


FILES = {
    "model.safetensors": "the weights, with config.json and preprocessor_config.json beside them",
    "README.md": "the model card",
    "metrics.json": "every number of this run",
    REPORT: "all of it on one page, with the most confident mistakes",
    **PICTURES,
}
STARTS = {"full": "fine-tuning", "lora": "fine-tuning by LoRA", "probe": "fitting a head to the features of"}
# Key in a log -> heading and format of a column of the table of epochs; {} is the split that is evaluated.
COLUMNS = {
    "epoch": ("epoch", ".0f"),
    "loss": ("train loss", ".4f"),
    "eval_loss": ("{} loss", ".4f"),
    "eval_accuracy": ("accuracy", ".2%"),
    "eval_mean_average_precision": ("mean average precision", ".2%"),
    "eval_macro_f1": ("macro-F1", ".4f"),
    "learning_rate": ("learning rate", ".1e"),
    "seconds": ("seconds", ".0f"),
}
# How much of a long list a page shows.
SHOWN_MISTAKES, SHOWN_MIXUPS, SHOWN_NAMES = 16, 12, 20


class EpochTable(ProgressCallback):
    """A progress bar over all steps, and one line of a table per epoch; `held_out` is the split that is evaluated."""

    def __init__(self, held_out: str = "test"):
        super().__init__()
        self.held_out = held_out
        self.latest: dict[str, float] = {}
        self.columns: list[str] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.monotonic()
        self.current_step = state.global_step
        if state.is_world_process_zero:
            # Without a terminal the bar would fill a log file, so there it stays away.
            self.training_bar = tqdm(total=state.max_steps, initial=state.global_step, dynamic_ncols=True, disable=None)

    def on_prediction_step(self, args, state, control, **kwargs):
        """No second bar: evaluation takes a moment."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.latest.update(logs)
        if self.training_bar is not None and "eval_loss" in logs:
            self.latest["seconds"] = time.monotonic() - self.started
            if not self.columns:
                self.columns = [key for key in COLUMNS if key in self.latest]
                self.training_bar.write("   ".join(self._heading(key) for key in self.columns))
            self.training_bar.write("   ".join(self._cell(key) for key in self.columns))

    def _heading(self, key: str) -> str:
        return COLUMNS[key][0].format(self.held_out)

    def _cell(self, key: str) -> str:
        return format(self.latest[key], COLUMNS[key][1]).rjust(len(self._heading(key)))


def announce(images: ImageData, family: str, init: str | Path | None, out: Path, speed: str = "full") -> None:
    """Print what the images are and what is about to happen with them."""
    print("\n".join(describe(images)))
    start = f"weights of {init}" if init else "random weights"
    print(f"{STARTS[speed]} {family} from {start} into {out}", flush=True)


def summary(out: Path, shown: list[Prediction], record: dict[str, Any]) -> None:
    """Print what came of a run and where it is."""
    print("\nLoaded back with AutoModelForImageClassification and pipeline; unseen images:")
    for prediction in shown[:5]:
        mark = "right" if prediction.correct else f"wrong, it is {prediction.truth}"
        print(f"  {prediction.predicted:>12}  {prediction.probability:6.1%}  {mark}")
    told = ", ".join(f"{score_names(key)[1].lower()} {_score(key, record['scores'][key])}" for key in _told(record))
    print(f"\nTest images: {told}; {_duration(record['seconds'])}. Saved:")
    for name, meaning in FILES.items():
        if (out / name).exists():
            print(f"  {out / name}  {meaning[0].lower()}{meaning[1:]}")


@dataclass(frozen=True)
class Answers:
    """What a model says of the test images (`image`, `label`, `name`), and what they are.

    `probabilities` has shape (images, classes); `truth` is a class number each (images,), or several: ones and zeros of
    shape (images, classes).
    """

    images: datasets.Dataset
    probabilities: np.ndarray
    truth: np.ndarray

    @property
    def multi_label(self) -> bool:
        return self.truth.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """The class of each image (images,), or its label set (images, classes): what is more probable than not."""
        return self.probabilities > 0.5 if self.multi_label else self.probabilities.argmax(1)

    @property
    def right(self) -> np.ndarray:
        """Whether all that is said of an image is right, (images,)."""
        agrees = self.predicted == self.truth
        return agrees.all(1) if self.multi_label else agrees


def write_report(
    folder: Path, record: dict[str, Any], history: list[dict[str, Any]], answers: Answers, shown: list[Prediction]
) -> None:
    """Write the pictures of a run and `report.html`, a page that needs nothing but itself, into `folder`.

    `record` is what goes into `metrics.json`, `history` is `trainer.state.log_history` (empty for a probe), `shown` is
    what goes on the sheet of predictions.
    """
    labels, wrong = record["labels"], int((~answers.right).sum())
    figures = {title: svg_of(figure_of([draw], 4.6, 3.4), title) for title, draw in curves(history).items()}
    page: dict[str, Any] = {"curves": figures, "mixups": [], "matrix": None, "calibration": None}
    training_curve(history, folder / "training_curve.png")
    title = f"{len(shown)} of {len(answers.truth)} unseen images; {wrong} of all are wrong and come last"
    prediction_sheet(shown, folder / "predictions.png", title)
    if not answers.multi_label:
        counts = np.zeros((len(labels), len(labels)), dtype=int)
        np.add.at(counts, (answers.truth, answers.predicted), 1)
        drawn = {
            "confusion_matrix": confusion_matrix(counts, labels),
            "calibration": calibration(answers.probabilities.max(1), answers.right),
        }
        for name, figure in drawn.items():
            save_png(figure, folder / f"{name}.png")
        page["matrix"] = svg_of(drawn["confusion_matrix"], PICTURES["confusion_matrix.png"])
        page["calibration"] = svg_of(drawn["calibration"], PICTURES["calibration.png"])
        page["mixups"] = _mixups(counts, labels)
    page["classes"] = class_scores(answers, labels)
    page["mistakes"], page["wrong"] = _mistakes(answers, labels), wrong
    # A file name may hold bytes that are no text.
    (folder / REPORT).write_text(_page(record, answers, page), encoding="utf-8", errors="replace")


def class_scores(answers: Answers, labels: list[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and, for label sets, average precision of each class, the worst first.

    `support` is how many images have the class; those without any come last and have no scores (None).
    """
    numbers = range(len(labels))
    found = precision_recall_fscore_support(answers.truth, answers.predicted, labels=list(numbers), zero_division=0)
    rows = []
    for number, precision, recall, f1, support in zip(numbers, *found, strict=True):
        row = {"label": labels[number], "support": int(support), "precision": None, "recall": None, "f1": None}
        if support:
            row |= {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
        if answers.multi_label:
            truth, given = answers.truth[:, number], answers.probabilities[:, number]
            row["average_precision"] = float(average_precision_score(truth, given)) if support else None
        rows.append(row)
    return sorted(rows, key=lambda row: (row["f1"] is None, row["f1"]))


def _mixups(counts: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN_MIXUPS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {"truth": labels[a], "answer": labels[b], "count": int(wrong[a, b]), "of": int(counts[a].sum())}
        for a, b in pairs
        if wrong[a, b]
    ]


def _mistakes(answers: Answers, labels: list[str]) -> list[dict[str, Any]]:
    """The mistakes the model is surest of; of a label set, the label it is most wrong about."""
    if answers.multi_label:
        missed = np.where(answers.predicted == answers.truth, 0, np.abs(answers.probabilities - answers.truth))
        about, sureness = missed.argmax(1), missed.max(1)
    else:
        about, sureness = answers.predicted, answers.probabilities.max(1)
    wrong = np.flatnonzero(~answers.right)
    chosen = wrong[np.argsort(-sureness[wrong], kind="stable")][:SHOWN_MISTAKES]
    mistakes = []
    for index in chosen.tolist():
        row, label = answers.images[index], int(about[index])
        truth, predicted = answers.truth[index], answers.predicted[index]
        if answers.multi_label:
            truth, predicted = ([labels[n] for n in np.flatnonzero(which)] for which in (truth, predicted))
        else:
            truth, predicted = [labels[truth]], [labels[predicted]]
        mistakes.append(
            {
                "image": data_uri(to_rgb(row["image"])),
                "name": row["name"],
                "truth": truth,
                "predicted": predicted,
                "label": labels[label],
                "probability": float(answers.probabilities[index, label]),
            }
        )
    return mistakes


def _page(record: dict[str, Any], answers: Answers, page: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": _percent, "plain": _plain, "duration": _duration, "short": short, "svg": Markup}
    template = environment.from_string(Path(__file__).with_name(REPORT).read_text(encoding="utf-8"))
    names = {"family": TYPES[f"hf_{record['family']}"][0], "speed": SPEEDS[record["speed"]]}
    told = [(score_names(key)[1], _score(key, record["scores"][key])) for key in _told(record)]
    return template.render(
        record=record, names=names, scores=told, shown_names=SHOWN_NAMES, counts=counts_of, **_chance(answers), **page
    )


def _chance(answers: Answers) -> dict[str, Any]:
    """How sure one can be of the score, and what needs no model: naming the commonest class each time."""
    right, number = int(answers.right.sum()), len(answers.truth)
    interval = binomtest(right, number).proportion_ci(0.95, "wilson")
    commonest = None if answers.multi_label else float(np.bincount(answers.truth).max() / number)
    return {"right": right, "number": number, "interval": (interval.low, interval.high), "commonest": commonest}


def _told(record: dict[str, Any]) -> list[str]:
    """Keys of the scores, the headline first and the loss last."""
    order = list(SCORES)
    return sorted(record["scores"], key=lambda key: (key == "loss", order.index(key) if key in order else 1.5))


def _score(key: str, value: float) -> str:
    return f"{value:.4f}" if key == "loss" or key.endswith("_f1") else _percent(value, 2)


def _percent(value: float | None, digits: int = 1) -> str:
    return "—" if value is None or math.isnan(value) else f"{100 * value:.{digits}f} %"


def _plain(value: Any) -> str:
    words = {None: "—", True: "yes", False: "no"}
    if isinstance(value, bool | None):
        return words[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{rest} s" if not hours else ""]
    return " ".join(part for part in parts if part)
