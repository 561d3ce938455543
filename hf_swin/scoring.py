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
"""`hf-swin evaluate`: the scores of a classifier on a data set, and the protocol that they were measured by."""

import csv
import enum
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import UserError, errors_in_one_sentence
from .predict import Dtype, check_suffix


FORMATS = (".json", ".csv")
# Classes shown with their recall, the worst ones.
SHOWN_CLASSES = 10


class Split(enum.StrEnum):
    """Which images of a data set are scored."""

    test = "test"
    validation = "validation"
    train = "train"
    all = "all"


def evaluate(
    model: Annotated[str, typer.Argument(help="A folder or Hub id of an image classifier.")],
    data: Annotated[str, typer.Option(help="What `hf-swin finetune --data` takes.")],
    split: Annotated[Split, typer.Option(help="Without a test split the unseen fifth of finetune is it.")] = Split.test,
    out: Annotated[Path | None, typer.Option(help="A .json or .csv file for scores and protocol.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels that the model sees.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 32,
    workers: Annotated[int | None, typer.Option(help="Processes that decode and resize.", min=0)] = None,
    device_map: Annotated[str | None, typer.Option(help="'auto' spreads the model over all devices.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision; as the weights were saved if not given.")] = Dtype.auto,
    image_column: Annotated[str, typer.Option(help="Column of the images in a dataset.")] = "image",
    label_column: Annotated[str, typer.Option(help="Column of the labels in a dataset.")] = "label",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that are not images.")] = False,
) -> None:
    """Score an image classifier, and print by which protocol."""
    with errors_in_one_sentence("nothing was written."):
        check_suffix(out, FORMATS)
        import datasets

        from .data import load_images
        from .inference import WORKERS, open_classifier
        from .rundir import disk_errors, write_text

        datasets.disable_progress_bars()
        opened = open_classifier(model, image_size, device_map, dtype.value)
        images = load_images(data, image_column, label_column, skip_bad)
        result = {"model": model, "data": data}
        result |= score(*opened, images, split.value, batch_size, WORKERS if workers is None else workers)
        _print(result)
        if out:
            with disk_errors(out.parent):
                write_text(
                    out, _as_csv(result) if out.suffix.lower() == ".csv" else json.dumps(result, indent=2) + "\n"
                )
            print(f"scores and protocol in {out}")


def score(
    model: Any, processor: Any, images: Any, split: str = "test", batch_size: int = 32, workers: int = 0
) -> dict[str, Any]:
    """Return the `scores` of a model on a split of `ImageData`, or on "all", with `protocol` and `per_class_recall`.

    Recall is by name, None for a label without images, and left out where an image may have several. Raises `UserError`
    for a split that is not there and for labels that the model does not have.
    """
    from tqdm import tqdm

    from .inference import chooses_several, classify, protocol
    from .metrics import PerClassRecall, image_metrics

    rows = _rows(images, split)
    several = chooses_several(model.config)
    if images.multi_label and not several:
        raise UserError(f"{images.name} has several labels an image, but the model chooses one: take another model.")
    positions, matched = match_labels(images.labels, model.config)
    references = _references(rows["label"][:], positions, model.config.num_labels if several else 0)
    metrics, recall = image_metrics(model.config.num_labels, several), PerClassRecall()
    with tqdm(total=len(rows), unit="image", disable=None) as progress:
        for numbers, probabilities, unreadable in classify(model, processor, rows["image"], batch_size, workers):
            if unreadable:
                raise UserError(f"{rows[unreadable[0]]['name']} was readable a moment ago: run the same command again.")
            batch = {"predictions": probabilities.numpy(), "references": [references[number] for number in numbers]}
            for metric in (metrics,) if several else (metrics, recall):
                metric.add_batch(**batch)
            progress.update(len(numbers))
    skipped = images.summary["skipped"]
    counted = {"split": split, "images": len(rows), "labels": matched, "skipped": len(skipped)}
    result = {"protocol": {**counted, **protocol(model, processor)}, "scores": metrics.compute()}
    if not several:
        found = recall.compute()["per_class_recall"]
        shares = {name: found[position] for name, position in zip(images.labels, positions, strict=True)}
        result["per_class_recall"] = {name: None if math.isnan(share) else share for name, share in shares.items()}
    return result


def _rows(images: Any, split: str) -> Any:
    from datasets import concatenate_datasets

    splits = {"train": images.train, "validation": images.validation, "test": images.test}
    there = {name: rows for name, rows in splits.items() if rows is not None}
    if split == "all":
        return concatenate_datasets(list(there.values()))
    if split not in there:
        raise UserError(f"{images.name} has no split {split!r}: choose one of {', '.join(there)}, all.")
    return there[split]


def match_labels(labels: Sequence[str], config: Any) -> tuple[list[int], str]:
    """Return the number that the model has for each label of the data, and how they were matched, in words.

    By name, or by order if the model only calls its labels LABEL_0, LABEL_1, … and has as many. Raises `UserError` if
    a label of the data is none of the model, or two.
    """
    names = [config.id2label[number] for number in range(config.num_labels)]
    if list(labels) == names:
        return list(range(len(names))), "by name"
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        if len(names) != len(labels):
            raise UserError(
                f"the model has {len(names)} labels without names, the data {len(labels)}: they do not match."
            )
        return list(range(len(names))), "by order, because the model does not name them"
    for label in labels:
        if names.count(label) != 1:
            how_often = "no label" if label not in names else "several labels"
            raise UserError(f"the model has {how_often} {label!r}, only {_some(names)}: rename the class of the data.")
    return [names.index(label) for label in labels], f"by name, {len(labels)} of the model's {len(names)}"


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _references(labels: Sequence[Any], positions: Sequence[int], several: int) -> list[Any]:
    """Labels of the data as numbers of the model, or as `several` zeros and ones."""
    if not several:
        return [positions[label] for label in labels]
    rows = []
    for label in labels:
        chosen = {positions[number] for number in (label if isinstance(label, list) else [label])}
        rows.append([int(number in chosen) for number in range(several)])
    return rows


def _print(result: dict[str, Any]) -> None:
    from .record import score_names

    console = Console()
    console.print(Text(f"{result['model']} on {result['data']}", style="bold"))
    steps = Table(box=None, show_header=False, padding=(0, 1))
    for name, value in result["protocol"].items():
        steps.add_row(Text(name.replace("_", " "), style="dim"), Text(_in_words(value)))
    table = Table("score", "value")
    for key, value in result["scores"].items():
        table.add_row(score_names(key)[1], f"{value:.4f}")
    console.print(steps, table)
    shares = {name: share for name, share in result.get("per_class_recall", {}).items() if share is not None}
    worst = Table("class" if len(shares) <= SHOWN_CLASSES else f"worst of {len(shares)} classes", "recall")
    for name in sorted(shares, key=shares.get)[:SHOWN_CLASSES]:
        worst.add_row(Text(name), f"{shares[name]:.4f}")
    if shares:
        console.print(worst)


def _in_words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(_in_words(number) for number in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _as_csv(result: dict[str, Any]) -> str:
    """One line of names and one of values, so that the files of several models can be put under each other."""
    line = {"model": result["model"], "data": result["data"], **result["protocol"], **result["scores"]}
    line = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in line.items()}
    text = io.StringIO()
    writer = csv.DictWriter(text, line)
    writer.writeheader()
    writer.writerow(line)
    return text.getvalue()


if __name__ == "__main__":
    typer.run(evaluate)
