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
"""Where images come from: digits, class folders, folders of splits, CSV files, saved datasets and Hub datasets."""

import csv
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.compute
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, load_dataset, load_from_disk
from PIL import Image as PILImage

from .errors import UserError, one_line


# What splits are called in folders, in CSV files and on the Hub.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Columns that are taken if there is none of the name asked for, and that name is the default, the first of the row.
IMAGE_COLUMNS = ("image", "path", "file")
LABEL_COLUMNS = ("label", "labels")
SPLIT_COLUMN = "split"
TABLES = {".parquet", ".arrow", ".json", ".jsonl", ".csv"}
BETWEEN_LABELS = "|"
DIGITS_SIZE = 32


def open_source(source: str | Path, image_column: str, label_column: str) -> dict[str, Dataset]:
    """Open what a user calls `source` and return its splits, `train` always, `validation` and `test` if there.

    Each has the columns `image` (not decoded), `label` (as the source has it) and `name` (the path, or "row 7 of
    'train'"). Raises `UserError` for a source that is not there or not understood.
    """
    path = Path(source).expanduser()
    if str(source) == "digits":
        splits = {"train": _digits()}
    elif path.is_dir():
        splits = _open_folder(path)
    elif path.suffix.lower() == ".csv":
        splits = _open_csv(path, image_column, label_column)
    elif _looks_like_path(str(source)):
        raise UserError(f"{source} is not a folder: check the path given as data, or create it.")
    else:
        splits = _open_hub(str(source))
    splits = {name: _standard_columns(split, name, image_column, label_column) for name, split in splits.items()}
    return _known_splits(splits, source)


def split_called(word: str) -> str | None:
    """Return `train`, `validation` or `test` for any usual name of a split, otherwise None."""
    return next((split for split, names in SPLITS.items() if word.strip().lower() in names), None)


def _known_splits(splits: dict[str, Dataset], source: str | Path) -> dict[str, Dataset]:
    if len(splits) == 1:
        return {"train": next(iter(splits.values()))}
    known = {}
    for name, split in splits.items():
        meaning = split_called(name)
        if meaning in known:
            raise UserError(f"{source} has two splits for {meaning}, one of them {name!r}: keep one.")
        if meaning:  # the Hub has sets with others, such as "extra" or "unsupervised"
            known[meaning] = split
    if "train" not in known:
        raise UserError(f"{source} has the splits {', '.join(splits)}: call the one to train on 'train'.")
    return known


def _digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 32x32."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / digits.images.max())).astype(np.uint8)
    images = []
    for index, picture in enumerate(pixels):
        file = BytesIO()
        resized = PILImage.fromarray(picture).resize((DIGITS_SIZE, DIGITS_SIZE), PILImage.Resampling.BICUBIC)
        resized.save(file, "PNG", compress_level=1)
        images.append({"bytes": file.getvalue(), "path": f"digit {index}"})
    features = Features({"image": Image(), "label": ClassLabel(names=[str(name) for name in digits.target_names])})
    return Dataset.from_dict({"image": images, "label": digits.target.tolist()}, features=features)


def _looks_like_path(source: str) -> bool:
    # A Hub name is "name" or "owner/name"; anything else can only be meant as a path.
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source or Path(source).exists()


def _open_folder(path: Path) -> dict[str, Dataset]:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        saved = load_from_disk(str(path))
        return dict(saved) if isinstance(saved, DatasetDict) else {"train": saved}
    if any(file.suffix in TABLES for file in _visible(path) if file.is_file()):
        return _open_hub(str(path))
    folders = [entry for entry in _visible(path) if entry.is_dir()]
    train = next((folder for folder in folders if split_called(folder.name) == "train"), None)
    # A class may be called "train" too, but then it holds no folders, and not all others sound like splits.
    if train and (any(map(Path.is_dir, _visible(train))) or all(split_called(folder.name) for folder in folders)):
        return _open_split_folders(path, folders)
    return {"train": _open_class_folders(path)}


def _visible(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))


def _open_split_folders(path: Path, folders: list[Path]) -> dict[str, Dataset]:
    splits = {}
    for folder in folders:
        split = split_called(folder.name)
        if split is None:
            words = ", ".join(SPLITS)
            raise UserError(
                f"{path} has the folder {folder.name!r} beside its splits: call it one of {words}, or move it."
            )
        splits[folder.name] = _open_class_folders(folder, at_least=2 if split == "train" else 1)
    return splits


def _open_class_folders(path: Path, at_least: int = 2) -> Dataset:
    classes = [entry for entry in _visible(path) if entry.is_dir()]
    if len(classes) < at_least:
        found = f"only the sub-folder {classes[0].name!r}" if classes else "no sub-folder"
        raise UserError(f"{path} holds {found}: put the images of each class (two at least) into a folder of its own.")
    files, labels = [], []
    for folder in classes:
        members = [str(file) for file in _visible(folder) if file.is_file()]
        if not members:
            raise UserError(f"{folder} holds no image: put images there, or remove the folder.")
        files += members
        labels += [folder.name] * len(members)
    return Dataset.from_dict({"image": files, "label": labels})


def _open_csv(path: Path, image_column: str, label_column: str) -> dict[str, Dataset]:
    """Read a file of a path (relative to the file's folder), a label and perhaps a split per line."""
    columns, rows = _read_csv(path)
    image = _column(columns, image_column, IMAGE_COLUMNS, "--image-column")
    label = _column(columns, label_column, LABEL_COLUMNS, "--label-column")
    labels, kind = _csv_labels([row[label] for row in rows])
    splits: dict[str, tuple[list, list]] = {}
    for number, row in enumerate(rows):
        split = row.get(SPLIT_COLUMN, "train")
        if split_called(split) is None:
            words = ", ".join(SPLITS)
            raise UserError(f"{path} has {split!r} in the column {SPLIT_COLUMN!r}: it may hold {words}.")
        files, values = splits.setdefault(split_called(split), ([], []))
        files.append(str(path.parent / row[image]) if row[image] else None)
        values.append(labels[number])
    features = Features({image: Value("string"), label: kind})
    return {
        split: Dataset.from_dict({image: files, label: values}, features=features)
        for split, (files, values) in splits.items()
    }


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, skipinitialspace=True) if line]
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}): check the path given as data.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({one_line(error)}): save it as one.") from error
    if len(lines) < 2:
        raise UserError(f"{path} lists no image: give it a line of column names and a line for each image.")
    columns = lines[0]
    for number, line in enumerate(lines):
        if len(line) != len(columns):
            raise UserError(
                f"{path} has {len(line)} cell(s) in row {number}, not {len(columns)}: quote cells with commas."
            )
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def _csv_labels(cells: list[str]) -> tuple[list, Value | List]:
    """Return the labels, lists of them if a cell holds several, and as numbers if all are, so that 10 follows 9."""
    rows = [[part.strip() for part in cell.split(BETWEEN_LABELS) if part.strip()] for cell in cells]
    several = any(BETWEEN_LABELS in cell for cell in cells)
    value = Value("string")
    if all(re.fullmatch("0|[1-9][0-9]{0,17}", part) for row in rows for part in row):
        value, rows = Value("int64"), [[int(part) for part in row] for row in rows]
    return (rows, List(value)) if several else ([row[0] if row else None for row in rows], value)


def _open_hub(name: str) -> dict[str, Dataset]:
    try:
        return dict(load_dataset(name))
    except Exception as error:  # `datasets` raises a dozen unrelated classes for "not there" and "cannot be read"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name!r} is neither a folder here nor a dataset that `datasets.load_dataset` can open ({reason})."
        ) from error


def _column(columns: list[str], wanted: str, usual: tuple[str, ...], option: str) -> str:
    candidates = usual if wanted == usual[0] else (wanted,)
    found = next((name for name in candidates if name in columns), None)
    if found is None:
        there = ", ".join(columns)
        raise UserError(f"the dataset has no column {wanted!r} but {there}: name the right one with {option}.")
    return found


def _standard_columns(split: Dataset, split_name: str, image_column: str, label_column: str) -> Dataset:
    image = _column(split.column_names, image_column, IMAGE_COLUMNS, "--image-column")
    label = _column(split.column_names, label_column, LABEL_COLUMNS, "--label-column")
    split = split.select_columns([image, label])
    wanted = {image: "image", label: "label"}
    split = split.rename_columns({old: new for old, new in wanted.items() if old != new})
    try:
        split = split.cast_column("image", Image(decode=False))
    except (NotImplementedError, TypeError, ValueError) as error:
        kind = split.features["image"]
        raise UserError(f"the column {image!r} holds {kind}, not images: see --image-column.") from error
    paths = pyarrow.compute.struct_field(split.with_format("arrow")[:]["image"], "path").to_pylist()
    names = [path or f"row {row} of {split_name!r}" for row, path in enumerate(paths)]
    return split.add_column("name", names, feature=Value("string"))
