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
"""Images and their labels: class folders, saved datasets and Hub datasets, brought into one shape."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset, load_from_disk
from PIL import Image as PILImage
from sklearn.model_selection import train_test_split

from .errors import UserError


TEST_SPLITS = ("test", "validation", "valid", "val")
SCRATCH_SIZES = (28, 32, 48, 64, 96, 112)
DIGITS_SIZE = 32


@dataclass(frozen=True)
class ImageData:
    """Two splits with the columns `image` and `label`, and what a model and a report need to know about them."""

    name: str
    train: Dataset
    test: Dataset
    labels: list[str]
    # Height and width of the smallest image, and the side a model trained from scratch should work at, in pixels.
    smallest: tuple[int, int]
    image_size: int
    skipped: list[str] = field(default_factory=list)


def load_images(
    source: str | Path,
    image_column: str = "image",
    label_column: str = "label",
    skip_bad: bool = False,
) -> ImageData:
    """Read `digits`, a folder of class folders, a dataset saved with `save_to_disk`, or a Hub dataset.

    A source without a test split gives a fixed, stratified fifth of its images to one. Files that are not images raise
    `UserError`, or are left out and listed in `skipped` if `skip_bad`.
    """
    if str(source) == "digits":
        return _digits()
    path = Path(source).expanduser()
    if path.is_dir():
        splits = _open_folder(path)
    elif _looks_like_path(str(source)):
        raise UserError(f"{source} is not a folder: check the path given as data, or create it.")
    else:
        splits = _open_hub(str(source))
    splits = {name: _standard_columns(split, image_column, label_column) for name, split in splits.items()}
    train, test, skipped, sizes = _checked(splits, skip_bad)
    labels = train.features["label"].names
    side = float(np.median([min(size) for size in sizes]))
    return ImageData(
        name=path.name if path.is_dir() else str(source),
        train=train,
        test=test,
        labels=labels,
        smallest=min(sizes, key=min),
        image_size=max((size for size in SCRATCH_SIZES if size <= side), default=SCRATCH_SIZES[0]),
        skipped=skipped,
    )


def _digits() -> ImageData:
    """Return scikit-learn's 1,797 handwritten digits, enlarged from 8x8 to 32x32."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / digits.images.max())).astype(np.uint8)
    side = (DIGITS_SIZE, DIGITS_SIZE)
    images = [PILImage.fromarray(image).resize(side, PILImage.Resampling.BICUBIC) for image in pixels]
    labels = [str(name) for name in digits.target_names]
    features = Features({"image": Image(), "label": ClassLabel(names=labels)})
    whole = Dataset.from_dict({"image": images, "label": digits.target.tolist()}, features=features)
    train, test = _stratified_split(whole)
    return ImageData("digits", train, test, labels, smallest=side, image_size=DIGITS_SIZE)


def _looks_like_path(source: str) -> bool:
    # A Hub name is "name" or "owner/name"; anything else can only be meant as a path.
    return source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source or Path(source).exists()


def _open_folder(path: Path) -> dict[str, Dataset]:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        saved = load_from_disk(str(path))
        return dict(saved) if isinstance(saved, DatasetDict) else {"train": saved}
    files = [entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    if any(file.suffix in {".parquet", ".arrow", ".json", ".jsonl", ".csv"} for file in files):
        return _open_hub(str(path))
    return {"train": _open_class_folders(path)}


def _open_class_folders(path: Path) -> Dataset:
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        found = f"only the sub-folder {classes[0]!r}" if classes else "no sub-folder"
        raise UserError(f"{path} holds {found}: put the images of each class (two at least) into a folder of its own.")
    files, labels = [], []
    for label, name in enumerate(classes):
        members = sorted(str(file) for file in (path / name).iterdir() if _is_visible_file(file))
        if not members:
            raise UserError(f"{path / name} holds no image: put images there, or remove the folder.")
        files += members
        labels += [label] * len(members)
    features = Features({"image": Image(), "label": ClassLabel(names=classes)})
    return Dataset.from_dict({"image": files, "label": labels}, features=features)


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _open_hub(name: str) -> dict[str, Dataset]:
    try:
        return dict(load_dataset(name))
    except Exception as error:  # `datasets` raises a dozen unrelated classes for "not there" and "cannot be read"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name!r} is neither a folder here nor a dataset that `datasets.load_dataset` can open ({reason})."
        ) from error


def _standard_columns(split: Dataset, image_column: str, label_column: str) -> Dataset:
    """Keep two columns, as `image` (not decoded) and `label` (a ClassLabel, sorted unless the dataset orders it)."""
    for column, option in ((image_column, "--image-column"), (label_column, "--label-column")):
        if column not in split.column_names:
            there = ", ".join(split.column_names)
            raise UserError(f"the dataset has no column {column!r} but {there}: name the right one with {option}.")
    split = split.select_columns([image_column, label_column])
    wanted = {image_column: "image", label_column: "label"}
    split = split.rename_columns({old: new for old, new in wanted.items() if old != new})
    try:
        split = split.cast_column("image", Image(decode=False))
    except (NotImplementedError, TypeError, ValueError) as error:
        kind = split.features["image"]
        raise UserError(f"the column {image_column!r} holds {kind}, not images: see --image-column.") from error
    return split


def _checked(splits: dict[str, Dataset], skip_bad: bool) -> tuple[Dataset, Dataset, list[str], list[tuple[int, int]]]:
    train_name = "train" if "train" in splits else next(iter(splits))
    test_name = next((name for name in TEST_SPLITS if name in splits and name != train_name), None)
    skipped, sizes, good = [], [], {}
    for name in filter(None, (train_name, test_name)):
        good[name], split_sizes, bad = _readable(splits[name], name, skip_bad)
        skipped += bad
        sizes += split_sizes
    names = _class_names(good[train_name])
    good = {name: _with_labels(split, names) for name, split in good.items()}
    good = {name: split.cast_column("image", Image()) for name, split in good.items()}
    train = good[train_name]
    counts = np.bincount(train["label"][:], minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if count < 2:
            raise UserError(f"the class {name!r} has {count} readable image(s) to train on: give it two or more.")
    train, test = (train, good[test_name]) if test_name else _stratified_split(train)
    return train, test, skipped, sizes


def _readable(split: Dataset, split_name: str, skip_bad: bool) -> tuple[Dataset, list[tuple[int, int]], list[str]]:
    """Decode every image once, so that a bad one is named before training starts and not in the middle of it."""
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_image_size, split["image"]))
    bad = [index for index, size in enumerate(sizes) if size is None]
    names = [split[index]["image"]["path"] or f"row {index} of the split {split_name!r}" for index in bad]
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{names[0]}{more} is not a readable image: remove it, or add --skip-bad to go on without.")
    if bad:
        keep = sorted(set(range(len(split))) - set(bad))
        split = split.select(keep)
    return split, [size for size in sizes if size is not None], names


def _image_size(image: dict | None) -> tuple[int, int] | None:
    """Return (height, width) of an undecoded `datasets` image, None if it cannot be decoded."""
    if image is None:
        return None
    try:
        with PILImage.open(BytesIO(image["bytes"]) if image["bytes"] else image["path"]) as opened:
            opened.load()
            return opened.height, opened.width
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError):
        return None


def _class_names(train: Dataset) -> list[str]:
    feature = train.features["label"]
    names = feature.names if isinstance(feature, ClassLabel) else [str(value) for value in sorted(set(train["label"]))]
    if len(names) < 2:
        raise UserError(f"the only class is {', '.join(names) or '(none)'}: a classifier needs two or more.")
    return names


def _with_labels(split: Dataset, names: list[str]) -> Dataset:
    if isinstance(split.features["label"], ClassLabel) and split.features["label"].names == names:
        return split
    number = {name: index for index, name in enumerate(names)}
    values = [str(value) for value in split["label"]]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise UserError(f"the class {unknown[0]!r} is in the test split only: add images of it to train on.")
    split = split.remove_columns("label").add_column("label", [number[value] for value in values])
    return split.cast_column("label", ClassLabel(names=names))


def _stratified_split(whole: Dataset, fraction: float = 0.2) -> tuple[Dataset, Dataset]:
    labels = np.asarray(whole["label"][:])
    size = max(len(np.unique(labels)), math.ceil(fraction * len(labels)))
    train, test = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=0)
    return whole.select(np.sort(train)), whole.select(np.sort(test))


def check_patch(images: ImageData, patch_size: int | list[int]) -> None:
    """Raise `UserError` if an image is smaller than a patch (pixels, one side or height and width)."""
    patch = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    if any(side < needed for side, needed in zip(images.smallest, patch, strict=True)):
        (height, width), (rows, columns) = images.smallest, patch
        raise UserError(
            f"{images.name} has an image of {width}x{height} pixels, smaller than a patch of {columns}x{rows}: "
            "remove or enlarge such images, or choose a smaller --image-size."
        )
