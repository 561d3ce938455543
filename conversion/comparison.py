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
"""The work of `hf-swin verify`: two models run on the same pixels, and all their parts compared."""

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn
from torchvision.transforms import v2
from transformers import AutoImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hf_swin.configuration_shared import pair
from hf_swin.errors import UserError
from hf_swin.registration import FAMILIES

from . import onnx
from .peers import PEERS, STOCK_PARTS, parts_of, renamed_part
from .preprocessing import FILE as PROCESSOR
from .reading import OURS, Reading, read


Parts = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Runner:
    """A model ready to run: what to call it, and a function from pixels to its parts by this package's names."""

    name: str
    run: Callable[[torch.Tensor], Parts]
    reading: Reading
    size: tuple[int, int]  # of its images, in pixels


def runner(source: str | Path, **how: Any) -> Runner:
    """Returns a source as its publisher's own class runs it, if that is installed, otherwise as this package does."""
    reading = read(source, **how)
    path, size = reading.weights.path, pair(reading.config.image_size)
    if path.suffix == ".onnx":
        return Runner("onnxruntime", partial(onnx.run, path), reading, onnx.image_size(path) or size)
    publisher, model, parts = _model_of(reading)
    run = _recorded(model, parts, reading.config.model_type)
    foreign = publisher == OURS and reading.format not in FAMILIES
    name = f"{publisher} {type(model).__name__}" + (f" reading {reading.format}" if foreign else "")
    return Runner(name, run, reading, size)


def _model_of(reading: Reading) -> tuple[str, nn.Module, tuple[str, ...]]:
    """Whose class runs a reading, that class with the weights, and what it calls its parts."""
    weights, config = reading.weights, reading.config
    stock = (weights.config or {}).get("model_type")
    if stock in STOCK_PARTS and reading.format.startswith("transformers"):
        stock_class = getattr(transformers, weights.config["architectures"][0])
        return "transformers", stock_class.from_pretrained(weights.path, dtype=torch.float32), STOCK_PARTS[stock]
    if reading.format in PEERS:
        peer = PEERS[reading.format]
        with suppress(ImportError):  # not installed
            model = peer.build(config)
            wanted = model.state_dict()  # a file may hold more: buffers of old versions, the decoder of a MAE
            model.load_state_dict({key: weights.tensors[key].read() for key in wanted if key in weights.tensors})
            return type(model).__module__.split(".")[0], model, peer.parts
    tensors = dict(reading.tensors())
    model = reading.model_class.from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32)
    return OURS, model, parts_of(config.model_type)


def _recorded(model: nn.Module, parts: tuple[str, ...], family: str) -> Callable[[torch.Tensor], Parts]:
    body = getattr(model, "base_model_prefix", "")
    named = {}
    for path, module in model.named_modules():
        name = renamed_part(path.removeprefix(body + "."), parts, parts_of(family))
        if name and not (name.endswith("merging") and isinstance(module, nn.Identity)):
            named[name] = module
    model.eval()

    @torch.inference_mode()
    def run(pixels: torch.Tensor) -> Parts:
        found: Parts = {}
        hooks = [module.register_forward_hook(_recorder(found, name)) for name, module in named.items()]
        try:
            answer = model(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return {**found, **_answers(answer)}

    return run


def _answers(answer: Any) -> Parts:
    """What a model is asked for: logits, painted pixels or feature maps; the tokens of a body are parts already."""
    if torch.is_tensor(answer):
        return {"logits": answer} if answer.ndim == 2 else {}
    maps = {f"feature_maps.{index}": one for index, one in enumerate(answer.get("feature_maps") or ())}
    return {name: answer[name] for name in ("logits", "reconstruction") if answer.get(name) is not None} | maps


def _recorder(found: Parts, name: str):
    def record(module, inputs, output):
        found[name] = output if torch.is_tensor(output) else output[0]

    return record


@dataclass(frozen=True)
class Row:
    """One part: its largest absolute difference, and that relative to the largest value."""

    pixels: str
    part: str
    shape: tuple[int, ...]
    difference: float
    relative: float


def compare(first: Runner, second: Runner, images: dict[str, torch.Tensor]) -> list[Row]:
    """Returns a row for each part that both have, for each of the images, in the order of the forward pass.

    Parts of different sizes differ without measure.
    """
    rows = []
    for name, pixels in images.items():
        ours, theirs = first.run(pixels), second.run(pixels)
        rows += [_row(name, part, ours[part], theirs[part]) for part in ours if part in theirs]
    if not rows:
        raise UserError(f"{first.name} and {second.name} have no part in common: they are of different sizes.")
    return rows


def _row(pixels: str, part: str, ours: torch.Tensor, theirs: torch.Tensor) -> Row:
    if ours.numel() != theirs.numel():
        return Row(pixels, part, tuple(ours.shape), math.inf, math.inf)
    difference = (ours.double().flatten() - theirs.double().flatten()).abs().max().item()
    return Row(
        pixels, part, tuple(ours.shape), difference, difference / theirs.double().abs().max().clamp(1e-12).item()
    )


def images_for(reading: Reading, size: tuple[int, int], photograph: Path | None) -> dict[str, torch.Tensor]:
    """Returns pixels (1, channels, height, width): random ones, and a photograph's."""
    noise = torch.randn(1, reading.config.num_channels, *size, generator=torch.Generator().manual_seed(0))
    return {"random": noise, "photograph": _pixels(_photograph(photograph), reading, size)}


def _photograph(path: Path | None) -> Image.Image:
    if path is not None:
        try:
            return Image.open(path).convert("RGB")
        except OSError as error:
            raise UserError(f"--image {path} is no picture that can be opened.") from error
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise UserError("name a photograph with --image (without it, one of scikit-learn is taken).") from error
    return Image.fromarray(load_sample_image("china.jpg"))


def _pixels(picture: Image.Image, reading: Reading, size: tuple[int, int]) -> torch.Tensor:
    """The picture as the model's image processor gives it, brought to a size and to the model's channels."""
    folder = reading.weights.path
    if (folder / PROCESSOR).is_file():
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        pixels = processor(picture, return_tensors="pt")["pixel_values"]
    else:
        steps = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
        pixels = v2.Compose([*steps, v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)])(picture)[None]
    pixels = v2.functional.resize(pixels, list(size), antialias=True)
    channels = reading.config.num_channels
    return pixels.mean(1, keepdim=True).expand(-1, channels, -1, -1) if channels != 3 else pixels


def table_of(rows: list[Row], tolerance: float) -> Table:
    """Returns the rows as a table that marks what is past the tolerance."""
    table = Table("pixels", "part", "shape", box=box.SIMPLE)
    table.add_column("difference", justify="right")
    table.add_column("relative", justify="right")
    table.add_column("")
    for row in rows:
        mark = "" if row.relative <= tolerance else "differs"
        shape = "x".join(map(str, row.shape))
        table.add_row(row.pixels, row.part, shape, f"{row.difference:.1e}", f"{row.relative:.1e}", mark)
    return table


def verify_two(one: Runner, other: Runner, tolerance: float, image: Path | None) -> bool:
    """Prints the table of two models and the first part that differs; returns whether all are within the tolerance.

    Raises `UserError` for models that cannot be compared.
    """
    for name in ("model_type", "num_channels"):
        mine, theirs = getattr(one.reading.config, name), getattr(other.reading.config, name)
        if mine != theirs:
            raise UserError(f"the first has {name} {mine} and the second {theirs}: they cannot be compared.")
    rows = compare(one, other, images_for(one.reading, other.size, image))
    wide = None if sys.stdout.isatty() else 120  # a pipe has no width of its own
    Console(width=wide).print(table_of(rows, tolerance))
    failed = next((row for row in rows if not row.relative <= tolerance), None)
    if failed is None:
        print(
            f"equal: no part differs by more than {max(row.relative for row in rows):.1e} (tolerance {tolerance:.0e})"
        )
        return True
    print(f"{failed.part} is the first to differ, by {failed.relative:.1e} (tolerance {tolerance:.0e})")
    return False
