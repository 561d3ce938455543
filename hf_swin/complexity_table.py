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
"""`hf-swin complexity`: a table of what the parts of a model cost for one image."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import UserError, errors_in_one_sentence, one_line


if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from .complexity import Part

# Classes of ImageNet-1k, on which the published figures of the presets were taken.
LABELS = 1000
HEADERS = ("tokens", "channels", "blocks", "parameters", "operations\nby formula", "\nby count", "memory")
LEGEND = (
    "An operation is a multiplication with its addition, two FLOPs. Memory is that of the activations which training "
    "in float32, with eager attention, keeps for the backward pass of one image."
)


def complexity(
    model: Annotated[str, typer.Argument(help="A short name such as swin-t or vit-b16, a folder or a Hub id.")],
    image_size: Annotated[
        str | None, typer.Option(help="Side in pixels, or HEIGHTxWIDTH; the model's own if not given.")
    ] = None,
) -> None:
    """Show parameters, operations and activation memory of each part of a model, without its weights."""
    with errors_in_one_sentence("nothing was counted."):
        from . import complexity as costs
        from .configuration_vit import pair

        config = config_of(model)
        size = size_of(image_size, pair(config.patch_size)) if image_size else pair(config.image_size)
        parts = costs.complexity(config, size)
        title = f"{model}, {size[0]}x{size[1]} pixels, {config.num_labels:,} labels"
        console = Console(highlight=False)
        console.print(table_of(parts, title))
        console.print(Text(LEGEND))


def config_of(model: str) -> "PreTrainedConfig":
    """Return the config of a short name, or that of a folder or Hub repository, stock ones as this package's own.

    Raises `UserError` for what is neither, and for models of other families.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import PreTrainedConfig

    from .presets import MODELS

    if model in MODELS:
        return MODELS[model](num_labels=LABELS)
    try:
        model_type = PreTrainedConfig.get_config_dict(model)[0].get("model_type")
    except (OSError, ValueError) as error:
        names = ", ".join(MODELS)
        raise UserError(f"{model!r} is no model: give a folder with a config.json, a Hub id, or {names}.") from error
    from .starting import CLASSES, FAMILY_OF

    if model_type not in FAMILY_OF:
        raise UserError(f"{model!r} is a {model_type!r} model: give one of {', '.join(sorted(FAMILY_OF))}.")
    try:
        return CLASSES[FAMILY_OF[model_type]][0].from_pretrained(model)
    except (ValueError, StrictDataclassError) as error:
        raise UserError(f"the config of {model!r} does not hold: {one_line(error.__cause__ or error)}.") from error


def size_of(text: str, patch: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) in pixels of "224" or "300x500"; raises `UserError`, also for less than a patch."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if not found:
        raise UserError(f"--image-size {text!r} is no size: write 224, or 300x500 for height and width in pixels.")
    size = int(found[1]), int(found[2] or found[1])
    if any(side < step for side, step in zip(size, patch, strict=True)):
        raise UserError(f"--image-size {text}: a patch is {patch[0]}x{patch[1]} pixels, give an image of at least one.")
    return size


def table_of(parts: Sequence["Part"], title: str) -> Table:
    """Return one row for each part, and their sums."""
    table = Table(title=Text(title, style="table.title"), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("part", no_wrap=True)
    for header in HEADERS:
        table.add_column(header, justify="right", no_wrap=True)
    for part in parts:
        table.add_row(part.name, _tokens(part), str(part.channels), str(part.blocks or ""), *_sums([part]))
    table.add_section()
    table.add_row("total", "", "", str(sum(part.blocks for part in parts)), *_sums(parts), style="bold")
    return table


def _tokens(part: "Part") -> str:
    return f"{part.grid[0]}x{part.grid[1]}" + (f"+{part.prefix}" if part.prefix else "")


def _sums(parts: Sequence["Part"]) -> list[str]:
    names = ("parameters", "formula", "counted", "activations")
    parameters, formula, counted, activations = (sum(getattr(part, name) for part in parts) for name in names)
    return [in_units(parameters), in_units(formula), in_units(counted), in_units(activations) + "B"]


def in_units(number: int) -> str:
    """Return a number with three digits or more and a decimal unit: 28.3 M, 4.49 G."""
    unit = ""
    for larger in ("k", "M", "G", "T", "P"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    digits = 0 if not unit or number >= 100 else 1 if number >= 10 else 2
    return f"{number:.{digits}f} {unit}"
