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
"""The catalogue of published checkpoints, a line of `checkpoints.txt` each: what their weights alone do not tell."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import ViTImageProcessor
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    PILImageResampling,
)

from hf_swin.errors import UserError


# Width of the first stage, blocks of each stage.
SWIN_SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2)),
    "small": (96, (2, 2, 18, 2)),
    "s3-base": (96, (2, 2, 30, 2)),
    "base": (128, (2, 2, 18, 2)),
    "large": (192, (2, 2, 18, 2)),
    "huge": (352, (2, 2, 18, 2)),
    "giant": (448, (2, 2, 18, 2)),
}
# Width, blocks, heads.
VIT_SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1536, 40, 24),
}
# Microsoft's 22k leaves out the two classes of Google's 21k that have no pictures.
LABELS = {"imagenet-1k": 1000, "imagenet-22k": 21841, "imagenet-21k": 21843}
NAMES_OF_LABELS = {"imagenet-1k": "imagenet_1k.txt"}
# One map for both: Microsoft gave the places of those two to the last two classes, and neither is among the 1000.
LABEL_MAPS = {
    ("imagenet-22k", "imagenet-1k"): "imagenet_21k_to_1k.txt",
    ("imagenet-21k", "imagenet-1k"): "imagenet_21k_to_1k.txt",
}
MEAN_AND_STD = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "half": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}


@dataclass(frozen=True)
class Preprocessing:
    """How the authors of the weights prepare a picture to measure their top-1."""

    mean: str  # a key of MEAN_AND_STD
    resize: int | None  # pixels of the shorter side before the crop; None squashes the picture to (crop, crop)
    crop: int  # pixels a side
    interpolation: str  # "bicubic" or "bilinear"


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint: what to call it, what its weights do not tell, and the facts of a model card."""

    name: str  # the publisher's file, with as much of its path as tells it from others, or the Hub repository
    format: str
    numbers: dict[str, Any]  # fields of our config
    width: int  # embed_dim of a Swin, hidden_size of a ViT
    depth: int | tuple[int, ...]  # blocks: of each stage of a Swin, of a whole ViT
    patch_size: int
    num_labels: int  # 0 without a classifier
    labels: str | None  # a key of LABELS
    preprocessing: Preprocessing
    licence: str  # SPDX, as the publisher of the weights says
    top1: float | None  # percent on ImageNet-1k, where somebody published it for this very file
    parameters: int  # as the publisher counts: mask tokens and zeros too, but not the decoder of masked images


def _checkpoint(line: str) -> Checkpoint:
    format, size, image, window, trained, labels, recipe, licence, top1, parameters, name = line.split()
    size, patch_size = size.split("/")
    mean, resize, crop, interpolation = recipe.split("/")
    numbers: dict[str, Any] = {"image_size": int(image)}
    if "swin" in format:
        width, depth = SWIN_SIZES[size]
        windows = [int(side) for side in window.split(",")]
        numbers["window_size"] = windows[0] if len(windows) == 1 else windows
        if trained != "-":
            numbers["pretrained_window_sizes"] = [int(side) for side in trained.split(",")]
    else:
        width, depth, numbers["num_attention_heads"] = VIT_SIZES[size]
    return Checkpoint(
        name=name,
        format=format,
        numbers=numbers,
        width=width,
        depth=depth,
        patch_size=int(patch_size),
        num_labels=LABELS.get(labels, 0),
        labels=None if labels == "-" else labels,
        preprocessing=Preprocessing(mean, None if resize == "-" else int(resize), int(crop), interpolation),
        licence=licence,
        top1=None if top1 == "-" else float(top1),
        parameters=int(parameters),
    )


def _lines(*path: str) -> list[str]:
    return Path(__file__).parent.joinpath(*path).read_text(encoding="utf-8").splitlines()


CHECKPOINTS = tuple(_checkpoint(line) for line in _lines("checkpoints.txt") if line and not line.startswith("#"))
FORMATS = tuple(dict.fromkeys(checkpoint.format for checkpoint in CHECKPOINTS))


def named(name: str) -> Checkpoint | None:
    """Returns the checkpoint of this name, or whose name ends this path or address; None if there is none."""
    path = "/" + Path(name).as_posix()
    return next((checkpoint for checkpoint in CHECKPOINTS if path.endswith("/" + checkpoint.name)), None)


def find(name: str) -> Checkpoint:
    """Returns the checkpoint of this name, as `named`; raises UserError with the closest names if there is none."""
    checkpoint = named(name)
    if checkpoint is None:
        names = [known.name for known in CHECKPOINTS]
        holding = [known for known in names if name.lower() in known.lower()]
        close = (holding or difflib.get_close_matches(name, names, n=5, cutoff=0.5))[:5]
        remedy = f"did you mean {' or '.join(close)}?" if close else "see `hf-swin convert --list`"
        raise UserError(f"no published checkpoint is called {name!r}; {remedy}")
    return checkpoint


def like(
    format: str | None, width: int, depth: int | tuple[int, ...], patch_size: int, num_labels: int
) -> list[Checkpoint]:
    """Returns the checkpoints that agree with sizes read from weights; a format of None agrees with all.

    A layout that is a variant of a publisher's format, as `torchvision_vit_old`, agrees with that.
    """
    published = max((known for known in FORMATS if format and format.startswith(known)), key=len, default=format)
    depth = depth if isinstance(depth, int) else tuple(depth)
    return [
        checkpoint
        for checkpoint in CHECKPOINTS
        if published in (None, checkpoint.format)
        and (width, depth, patch_size) == (checkpoint.width, checkpoint.depth, checkpoint.patch_size)
        and num_labels == checkpoint.num_labels
    ]


def image_processor(source: Checkpoint | Preprocessing) -> ViTImageProcessor:
    """Returns the processor of transformers that prepares pictures as their authors do, with antialiasing.

    It equals the transforms of torchvision, except that it rounds the corner of a centre crop down where they round to
    the nearest: one pixel, for one margin in four.
    """
    recipe = source.preprocessing if isinstance(source, Checkpoint) else source
    mean, std = MEAN_AND_STD[recipe.mean]
    square = {"height": recipe.crop, "width": recipe.crop}
    return ViTImageProcessor(
        do_resize=True,
        size=square if recipe.resize is None else {"shortest_edge": recipe.resize},
        resample=PILImageResampling[recipe.interpolation.upper()],
        do_center_crop=recipe.resize is not None,
        crop_size=square,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
        do_convert_rgb=True,
    )


def id2label(labels: str | None) -> dict[int, str] | None:
    """Returns the names of the classes, or None where this package has none."""
    if labels not in NAMES_OF_LABELS:
        return None
    return dict(enumerate(_lines("labels", NAMES_OF_LABELS[labels])))


def label_map(source: str, target: str) -> list[int]:
    """Returns for each class of `target` the row of a `source` classifier; raises UserError for pairs without a map.

    Class 850 of ImageNet-1k, the teddy bear, is in no larger list; as in Microsoft's own map it gets the row of the
    teddy that is a garment, which is a start for fine-tuning and not an answer.
    """
    if (source, target) not in LABEL_MAPS:
        known = ", ".join(f"{one} to {other}" for one, other in LABEL_MAPS)
        raise UserError(f"there is no map from the labels {source!r} to {target!r}; there are {known}")
    return [int(index) for index in _lines("labels", LABEL_MAPS[source, target])]


def table(width: int | None = None) -> str:
    """Returns the catalogue as text; names are whole, and one that `width` columns do not hold gets its own line."""
    rows = [("format", "params", "input", "labels", "top-1", "licence", "name")]
    for checkpoint in CHECKPOINTS:
        top1 = "" if checkpoint.top1 is None else f"{checkpoint.top1:.1f}"
        size, labels = str(checkpoint.numbers["image_size"]), checkpoint.labels or ""
        millions = f"{checkpoint.parameters / 1e6:.1f}M"
        rows.append((checkpoint.format, millions, size, labels, top1, checkpoint.licence, checkpoint.name))
    lines = []
    for format, millions, size, labels, top1, licence, name in rows:
        facts = f"{format:20}  {millions:>7}  {size:>5}  {labels:12}  {top1:>5}  {licence:12}"
        fits = width is None or len(facts) + 2 + len(name) <= width
        lines += [f"{facts}  {name}"] if fits else [facts.rstrip(), f"    {name}"]
    return "\n".join(lines)
