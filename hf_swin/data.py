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
"""Images and their labels: every kind of source brought into one shape, with fixed, stratified splits."""

import math
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Image, LargeList, List, Value
from sklearn.model_selection import train_test_split

from .errors import UserError
from .inspection import class_counts, class_numbers, count_splits, inspect, summarise
from .sources import open_source


SCRATCH_SIZES = (28, 32, 48, 64, 96, 112)
TEST_FRACTION, VALIDATION_FRACTION = 0.2, 0.1


@dataclass(frozen=True)
class ImageData:
    """Two or three splits, and what a model and a report need to know about them.

    A split has the columns `image` (decoded at access), `label` (a class number, or a list of them if `multi_label`),
    `name` (the path, or "row 7 of 'train'") and `hash` (of size and RGB pixels). `summary` can be written as JSON:
    `images` per split, `classes` per split, `sizes` (height, width), `modes`, `skipped` names and `leaks`, pairs of
    names.
    """

    name: str
    train: Dataset
    validation: Dataset | None
    test: Dataset
    labels: list[str]
    multi_label: bool
    # Height and width of the smallest image, and the side a model trained from scratch should work at, in pixels.
    smallest: tuple[int, int]
    image_size: int
    summary: dict[str, Any]


def load_images(
    source: str | Path,
    image_column: str = "image",
    label_column: str = "label",
    skip_bad: bool = False,
) -> ImageData:
    """Read `digits`, a folder of classes or of splits, a CSV file, a dataset saved with `save_to_disk`, or a Hub one.

    A lone held-out split is the test split; without any, a fixed, stratified fifth of the images becomes it. Raises
    `UserError` for every mistake in the data, for files that are not images too unless `skip_bad`: then they are left
    out and listed in the summary.
    """
    splits, labels = _with_class_numbers(open_source(source, image_column, label_column))
    splits, pictures, skipped = inspect(splits, skip_bad)
    multi_label = not isinstance(splits["train"].features["label"], ClassLabel)
    _check_counts(splits["train"], labels, at_least=1 if multi_label else 2)
    splits = _three_splits({name: split.cast_column("image", Image()) for name, split in splits.items()})
    side = float(np.median([min(picture.size) for picture in pictures]))
    return ImageData(
        name=_name(source),
        **splits,
        labels=labels,
        multi_label=multi_label,
        smallest=min((picture.size for picture in pictures), key=min),
        image_size=max((size for size in SCRATCH_SIZES if size <= side), default=SCRATCH_SIZES[0]),
        summary=summarise(splits, labels, pictures, skipped),
    )


def with_validation(images: ImageData) -> ImageData:
    """Set a fixed, stratified tenth of `train` apart as `validation`, unless the source has a validation split.

    Raises `UserError` if there are too few images.
    """
    if images.validation is not None:
        return images
    train, validation = _set_apart(images.train, VALIDATION_FRACTION)
    splits = {"train": train, "validation": validation, "test": images.test}
    return replace(images, **splits, summary={**images.summary, **count_splits(splits, images.labels)})


def _name(source: str | Path) -> str:
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else str(source)


def _with_class_numbers(splits: dict[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """Number the labels of all splits by the classes of `train`, in their order or sorted."""
    train = splits["train"].features["label"]
    multi_label = isinstance(train, List | LargeList)
    values = {name: _label_values(split) for name, split in splits.items()}
    if not multi_label:  # the Hub has sets whose test labels are secret
        values = {name: rows for name, rows in values.items() if name == "train" or any(rows)}
    named = train.feature if multi_label else train
    names = named.names if isinstance(named, ClassLabel) else sorted(set(chain.from_iterable(values["train"])))
    names = [str(name) for name in names]
    if len(names) < 2:
        raise UserError(f"the only class is {', '.join(names) or '(none)'}: a classifier needs two or more.")
    numbered = {}
    for name, rows in values.items():
        numbers = _numbers(splits[name], name, rows, names, multi_label)
        feature = List(ClassLabel(names=names)) if multi_label else ClassLabel(names=names)
        numbered[name] = splits[name].remove_columns("label").add_column("label", numbers, feature=feature)
    return numbered, names


def _label_values(split: Dataset) -> list[list]:
    """Return the labels of every row as the source has them, names for a ClassLabel, nothing for a missing one."""
    feature = split.features["label"]
    kind = feature.feature if isinstance(feature, List | LargeList) else feature
    if not isinstance(kind, Value | ClassLabel):
        raise UserError(f"the label column holds {feature}, not labels: see --label-column.")
    rows = [row if isinstance(row, list) else [row] for row in split["label"][:]]
    rows = [[value for value in row if value is not None and value != ""] for row in rows]
    if isinstance(kind, ClassLabel):  # -1 stands for a secret label
        return [[kind.names[value] for value in row if value >= 0] for row in rows]
    return rows


def _numbers(split: Dataset, split_name: str, rows: list[list], names: list[str], multi_label: bool) -> list:
    number = {name: index for index, name in enumerate(names)}
    numbers = []
    for row, values in enumerate(rows):
        unknown = [value for value in values if str(value) not in number]
        if unknown:
            raise UserError(
                f"the class {str(unknown[0])!r} is in the {split_name} split only: add images of it to train on."
            )
        if len(set(values)) < len(values):
            raise UserError(f"{split['name'][row]} has the label {values[0]!r} twice: list the classes an image has.")
        if not values and not multi_label:
            raise UserError(f"{split['name'][row]} has no label: give it one, or remove it.")
        numbers.append([number[str(value)] for value in values])
    return numbers if multi_label else [row[0] for row in numbers]


def _check_counts(train: Dataset, labels: list[str], at_least: int) -> None:
    words = {1: "one", 2: "two"}[at_least]
    for label, count in zip(labels, class_counts(train, len(labels)), strict=True):
        if count < at_least:
            raise UserError(f"the class {label!r} has {count} readable image(s) to train on: give it {words} or more.")


def _three_splits(splits: dict[str, Dataset]) -> dict[str, Dataset | None]:
    train, validation, test = (splits.get(name) for name in ("train", "validation", "test"))
    if test is None:
        validation, test = None, validation
    if test is None:
        train, test = _set_apart(train, TEST_FRACTION)
    return {"train": train, "validation": validation, "test": test}


def _set_apart(whole: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Split a part off, the same in every run, stratified by the rarest class of each image.

    Copies of a picture stay together. What is alone in its class, and the last image of a class, stays in the first.
    """
    rows = class_numbers(whole)
    counts = np.bincount(list(chain.from_iterable(rows)))
    strata = np.array([min(row, key=lambda label: (counts[label], label), default=-1) for row in rows])
    _, first, picture = np.unique(whole["hash"][:], return_index=True, return_inverse=True)
    first = np.sort(first)
    _, stratum, members = np.unique(strata[first], return_inverse=True, return_counts=True)
    pool = first[members[stratum] > 1]
    apart = np.zeros(len(whole), dtype=bool)
    if len(pool):
        size = max(int((members > 1).sum()), math.ceil(fraction * len(pool)))
        _, chosen = train_test_split(pool, test_size=size, stratify=strata[pool], random_state=0)
        apart = np.isin(picture, picture[chosen])
    for label in set(chain.from_iterable(rows)).difference(*(rows[row] for row in np.flatnonzero(~apart))):
        last = next(row for row, labels in enumerate(rows) if label in labels)
        apart[picture == picture[last]] = False
    if not apart.any():
        raise UserError(f"{len(first)} different image(s) of {len(counts)} classes are too few to set some apart.")
    return whole.select(np.flatnonzero(~apart)), whole.select(np.flatnonzero(apart))


def check_patch(images: ImageData, patch_size: int | list[int]) -> None:
    """Raise `UserError` if an image is smaller than a patch (pixels, one side or height and width)."""
    patch = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    if any(side < needed for side, needed in zip(images.smallest, patch, strict=True)):
        (height, width), (rows, columns) = images.smallest, patch
        raise UserError(
            f"{images.name} has an image of {width}x{height} pixels, smaller than a patch of {columns}x{rows}: "
            "remove or enlarge such images, or choose a smaller --image-size."
        )
