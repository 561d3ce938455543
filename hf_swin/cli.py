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
"""The `hf-swin` command."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from .conversion.convert import convert
from .conversion.publish import publish
from .conversion.verify import verify
from .errors import errors_in_one_sentence


app = typer.Typer(no_args_is_help=True, add_completion=False)


class Family(enum.StrEnum):
    """The model families of this package."""

    swin = "swin"
    swin_v2 = "swin_v2"
    vit = "vit"


class Augmentation(enum.StrEnum):
    """What happens to a training image: nothing, small turns and shifts, or what a photograph bears."""

    none = "none"
    light = "light"
    photo = "photo"


def _option(kind: type, help_text: str, **limits) -> type:
    return Annotated[kind, typer.Option(help=help_text, **limits)]


@app.callback()
def main() -> None:
    """Vision Transformer, Swin and Swin v2 for transformers."""


@app.command()
def finetune(
    data: _option(
        str, "'digits', a folder with one sub-folder per class, a saved dataset, or a Hub dataset."
    ) = "digits",
    family: _option(Family, "Model family, if --init does not say it.") = Family.swin,
    init: _option(str | None, "Folder or Hub id of weights to start from.") = None,
    out: _option(Path | None, "Where to save; runs/FAMILY-DATA if not given.") = None,
    epochs: _option(int | None, "Passes over the training images.", min=1) = None,
    batch_size: _option(int | None, "Images per step.", min=1) = None,
    learning_rate: _option(float | None, "Highest learning rate.", min=0) = None,
    weight_decay: _option(float | None, "Pull of AdamW towards zero.", min=0) = None,
    augmentation: _option(Augmentation | None, "Changes to training images: photo mirrors and recolours them.") = None,
    image_size: _option(int | None, "Side in pixels that the model works at.", min=1) = None,
    image_column: _option(str, "Column of the images in a dataset.") = "image",
    label_column: _option(str, "Column of the labels in a dataset.") = "label",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that are not images.")] = False,
    seed: _option(int, "Seed of weights, order and augmentation.") = 0,
    resume: _option(bool | None, "Go on from the last checkpoint or begin again; by default as it fits.") = None,
) -> None:
    """Fine-tune an image classifier, save it, load it back and draw what it learned."""
    numbers = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay}
    numbers["augmentation"] = augmentation and augmentation.value
    options = {
        "image_column": image_column,
        "label_column": label_column,
        "skip_bad": skip_bad,
        "image_size": image_size,
    }
    with errors_in_one_sentence("the same command goes on from the last finished epoch."):
        import datasets

        from .finetune import finetune as run

        datasets.disable_progress_bars()
        given = {name: value for name, value in numbers.items() if value is not None}
        run(data, family.value, init, out, seed=seed, resume=resume, **options, **given)


app.command()(convert)
app.command()(verify)
app.command()(publish)


if __name__ == "__main__":
    app()
