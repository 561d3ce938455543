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
"""`hf-swin convert`: from any format to this package's, and from it to any other."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from hf_swin.errors import UserError, errors_in_one_sentence


def convert(
    source: Annotated[str | None, typer.Argument(help="A file of weights, a folder, or a Hub id.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    to: Annotated[str, typer.Option(help="Format to write: hf_swin, transformers, timm, torchvision, …")] = "hf_swin",
    from_: Annotated[str | None, typer.Option("--from", help="Format of the source, where two are alike.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name in the catalogue of the model that it is.")] = None,
    hint: Annotated[list[str] | None, typer.Option(help="A number the weights do not tell: NAME=VALUE.")] = None,
    image_size: Annotated[int | None, typer.Option(help="New side of the images in pixels.", min=1)] = None,
    window_size: Annotated[int | None, typer.Option(help="New side of the windows in tokens.", min=1)] = None,
    patch_size: Annotated[int | None, typer.Option(help="New side of the patches in pixels.", min=1)] = None,
    num_channels: Annotated[int | None, typer.Option(help="New number of channels.", min=1)] = None,
    num_labels: Annotated[int | None, typer.Option(help="New number of labels.", min=1)] = None,
    label_map: Annotated[Path | None, typer.Option(help="Text: for each new label the row of the old one.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the catalogue of published checkpoints.")] = False,
) -> None:
    """Convert weights from any public format to a folder that transformers opens, or to another format."""
    with errors_in_one_sentence("nothing was written."):
        from . import checkpoints
        from .changes import Changes
        from .reading import parse_hint
        from .writing import convert_weights, lines_of

        if list_:
            print(checkpoints.table(shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
            return
        if source is None or out is None:
            raise UserError("say what and where to: hf-swin convert SOURCE --out FOLDER, or --list.")
        sizes = {"image_size": image_size, "window_size": window_size}
        sizes |= {"patch_size": patch_size, "num_channels": num_channels}
        changes = Changes({name: size for name, size in sizes.items() if size}, num_labels, label_map)
        hints = dict(map(parse_hint, hint or []))
        report = convert_weights(source, out, to, changes, from_format=from_, checkpoint=checkpoint, hints=hints)
        print("\n".join(lines_of(report, out, to)))


if __name__ == "__main__":
    typer.run(convert)
