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
"""One look at every image before training: sizes, colours, unreadable files, the same picture in two splits."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Value
from PIL import Image as PILImage
from tqdm import tqdm

from .errors import UserError
from .transforms import to_rgb


if TYPE_CHECKING:
    from .data import ImageData

# Images in memory at once, as files; from how many on a bar shows; how many names and classes are printed.
BATCH, BAR_FROM, PRINTED_NAMES, PRINTED_LEAKS, PRINTED_CLASSES = 256, 1000, 5, 3, 10


@dataclass(frozen=True)
class Picture:
    """What one look tells: height and width in pixels, the mode of the file, a hash of size and RGB pixels."""

    size: tuple[int, int]
    mode: str
    hash: str


def look_at(image: dict[str, Any] | None) -> Picture | None:
    """Decode a `datasets` image (`bytes` or `path`) as training will see it; None if that cannot be done."""
    if image is None:
        return None
    try:
        with PILImage.open(BytesIO(image["bytes"]) if image["bytes"] else image["path"]) as opened:
            mode = opened.mode
            picture = to_rgb(opened)
    except Exception:  # broken bytes can make Pillow's readers raise anything; too large ones a DecompressionBombError
        return None
    size = (picture.height, picture.width)
    digest = hashlib.blake2b(picture.tobytes(), digest_size=16, salt=b"%dx%d" % size)
    return Picture(size, mode, digest.hexdigest())


def inspect(splits: dict[str, Dataset], skip_bad: bool) -> tuple[dict[str, Dataset], list[Picture], list[str]]:
    """Decode every image once; return the splits with a column `hash`, all pictures, and the names of those left out.

    Raises `UserError` for an image that cannot be read, unless `skip_bad`, and for a split of such images only.
    """
    count = sum(map(len, splits.values()))
    readable, pictures, skipped = {}, [], []
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=count, desc="looking at images", leave=False, disable=None if count >= BAR_FROM else True) as bar,
    ):
        for name, split in splits.items():
            looks = []
            for batch in split.select_columns("image").iter(BATCH):
                looks += pool.map(look_at, batch["image"])
                bar.update(len(batch["image"]))
            names = split["name"][:]
            skipped += [name for name, look in zip(names, looks, strict=True) if look is None]
            split = split.add_column("hash", [look and look.hash for look in looks], feature=Value("string"))
            good = [row for row, look in enumerate(looks) if look is not None]
            readable[name] = split if len(good) == len(split) else split.select(good)
            pictures += [looks[row] for row in good]
    if skipped and not skip_bad:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise UserError(f"{skipped[0]}{more} is not a readable image: remove it, or add --skip-bad to go on without.")
    for name, split in readable.items():
        if not len(split):
            raise UserError(f"the {name} split has no readable image: give it some, or remove the split.")
    return readable, pictures, skipped


def class_numbers(split: Dataset) -> list[list[int]]:
    """Return the classes of every row, a list of one if a row has a single label."""
    return [row if isinstance(row, list) else [row] for row in split["label"][:]]


def class_counts(split: Dataset, classes: int) -> list[int]:
    """Return how many rows of a split each class has."""
    return np.bincount(list(chain.from_iterable(class_numbers(split))), minlength=classes).tolist()


def count_splits(splits: dict[str, Dataset | None], labels: list[str]) -> dict[str, Any]:
    """Return the part of the summary that depends on which image is in which split."""
    held = {name: split for name, split in splits.items() if split is not None}
    counts = {name: class_counts(held[name], len(labels)) if name in held else [0] * len(labels) for name in splits}
    return {
        "images": {name: len(held.get(name, ())) for name in splits},
        "classes": {label: {name: counts[name][row] for name in splits} for row, label in enumerate(labels)},
        "leaks": _leaks(held.values()),
    }


def _leaks(splits: Iterable[Dataset]) -> list[list[str]]:
    """Return the name of every picture that an earlier split has too, after its name there."""
    leaks: list[list[str]] = []
    first_name: dict[str, str] = {}
    for split in splits:
        rows = list(zip(split["hash"][:], split["name"][:], strict=True))
        leaks += [[first_name[digest], name] for digest, name in rows if digest in first_name]
        for digest, name in rows:
            first_name.setdefault(digest, name)
    return leaks


def summarise(
    splits: dict[str, Dataset | None], labels: list[str], pictures: list[Picture], skipped: list[str]
) -> dict[str, Any]:
    """Return what a report says of the images, as JSON can hold it; sizes are height and width in pixels.

    The smallest image is the one with the shortest side, the largest the one with the longest.
    """
    sizes = [picture.size for picture in pictures]
    median = np.median(sizes, axis=0).round().astype(int).tolist()
    return {
        **count_splits(splits, labels),
        "sizes": {"smallest": list(min(sizes, key=min)), "median": median, "largest": list(max(sizes, key=max))},
        "modes": dict(Counter(picture.mode for picture in pictures).most_common()),
        "skipped": skipped,
    }


def describe(images: "ImageData") -> list[str]:
    """Return the lines that tell a user before training what the images are, and what is wrong with them."""
    facts = images.summary
    counts = {name: count for name, count in facts["images"].items() if count}
    kind = "labels, any number of them per image" if images.multi_label else "classes"
    lines = [
        f"{images.name}: {_listed(counts, ' images')}; {len(images.labels)} {kind}",
        f"  images to train on per class: {_class_line({k: v['train'] for k, v in facts['classes'].items()})}",
        f"  width x height: {_size_line(facts['sizes'])}; modes: {_listed(facts['modes'])}",
    ]
    if facts["skipped"]:
        lines.append(f"  left out {len(facts['skipped'])} file(s) that are not images: {_some(facts['skipped'])}")
    if facts["leaks"]:
        pairs = _some([f"{first} = {second}" for first, second in facts["leaks"]], PRINTED_LEAKS)
        lines.append(f"  {len(facts['leaks'])} picture(s) are in two splits, so scores will flatter: {pairs}")
    return lines


def _listed(counts: dict[str, int], unit: str = "") -> str:
    return ", ".join(f"{name} {count:,}{unit}" for name, count in counts.items())


def _class_line(counts: dict[str, int]) -> str:
    if len(counts) <= PRINTED_CLASSES:
        return _listed(counts)
    few, many = min(counts, key=counts.get), max(counts, key=counts.get)
    return f"from {counts[few]:,} ({few}) to {counts[many]:,} ({many})"


def _size_line(sizes: dict[str, list[int]]) -> str:
    smallest, median, largest = (f"{sizes[key][1]}x{sizes[key][0]}" for key in ("smallest", "median", "largest"))
    return f"all {smallest}" if smallest == largest else f"from {smallest} to {largest}, median {median}"


def _some(names: list[str], most: int = PRINTED_NAMES) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
