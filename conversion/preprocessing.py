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
"""The image processor that goes with converted weights: its source's own, or that of the catalogue."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from hf_swin.configuration_shared import pair
from hf_swin.rundir import write_text

from . import checkpoints
from .checkpoints import MEAN_AND_STD, Preprocessing
from .reading import Reading, sizes_and_labels


FILE = "preprocessor_config.json"


def write_processor(reading: Reading, folder: Path) -> list[str]:
    """Writes the image processor of a source; returns what is left to the user, in sentences."""
    own = reading.weights.path / FILE
    if own.is_file():
        shutil.copyfile(own, folder / FILE)
        return []
    recipe, note = preprocessing_of(reading)
    if recipe is None:
        return [*note, "nothing tells how its images are prepared: no image processor was written"]
    checkpoints.image_processor(recipe).save_pretrained(folder)
    return note


def preprocessing_of(reading: Reading) -> tuple[Preprocessing | None, list[str]]:
    """Returns how images are prepared, and a note where that is taken from published models of the same numbers."""
    known = reading.checkpoint or reading.like
    if known:
        return known.preprocessing, []
    written = (reading.weights.config or {}).get("pretrained_cfg")
    if written:
        recipe = _timm(written)
        return recipe, [] if recipe else ["timm prepares its images in a way that this package has no name for"]
    config = reading.config
    alike = checkpoints.like(reading.format, *sizes_and_labels(config))
    alike = [known for known in alike if known.numbers["image_size"] == config.image_size]
    recipes = {known.preprocessing for known in alike}
    if len(recipes) != 1:
        return None, []
    return recipes.pop(), [f"images are prepared as for {alike[0].name}, which has the same numbers: see that it is so"]


def _timm(written: dict[str, Any]) -> Preprocessing | None:
    """timm's own record of a model: it resizes to the input divided by the share that it crops, or squashes."""
    side, share = written["input_size"][-1], written.get("crop_pct") or 0.875
    found = tuple(written.get("mean", ())), tuple(written.get("std", ()))
    mean = next((name for name, known in MEAN_AND_STD.items() if found == tuple(map(tuple, known))), None)
    interpolation, mode = written.get("interpolation", "bicubic"), written.get("crop_mode") or "center"
    if mean is None or interpolation not in ("bicubic", "bilinear") or mode not in ("center", "squash"):
        return None
    return Preprocessing(mean, None if mode == "squash" else math.floor(side / share), side, interpolation)


def copy_processor(folder: Path, out: Path, before: Any, after: Any) -> None:
    """Copies an image processor; for another image size it is scaled so that its pictures have that size.

    They need not have had the old one: DINOv2 is prepared at 224 pixels and has positions for 518.
    """
    if not (folder / FILE).is_file():
        return
    written = json.loads((folder / FILE).read_text(encoding="utf-8"))
    last = written.get("crop_size" if written.get("do_center_crop") else "size") or {}
    side = last.get("height") or last.get("shortest_edge")
    if side and pair(after) != pair(before):
        ratio = pair(after)[0] / side
        for name in ("size", "crop_size"):
            if isinstance(written.get(name), dict):
                written[name] = {edge: pixels and round(pixels * ratio) for edge, pixels in written[name].items()}
    write_text(out / FILE, json.dumps(written, indent=2) + "\n")
