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
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .benchmark import bench
from .complexity_table import complexity
from .conversion.convert import convert
from .conversion.publish import publish
from .conversion.verify import verify
from .errors import errors_in_one_sentence
from .explain_page import explain
from .predict import predict
from .recipe import FIELDS
from .scoring import evaluate


ENGINE = {"rich_help_panel": "Engine"}
RECIPE = "Recipe: the numbers of the table, unless given"

app = typer.Typer(no_args_is_help=True, add_completion=False)


class Family(enum.StrEnum):
    """The model families of this package."""

    swin = "swin"
    swin_v2 = "swin_v2"
    vit = "vit"


class Speed(enum.StrEnum):
    """What learns: all weights, small adapters beside queries and values, or a head on frozen features alone."""

    full = "full"
    lora = "lora"
    probe = "probe"


def _option(kind: type, help_text: str, **settings: Any) -> type:
    return Annotated[kind, typer.Option(help=help_text, **settings)]


def _flag(name: str, help_text: str, **settings: Any) -> type:
    return Annotated[bool, typer.Option(name, help=help_text, **settings)]


def with_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each number of a recipe, which reach it as keywords; None is the table's number."""
    signature = inspect.signature(command)
    parameters = [entry for entry in signature.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    for name, field in FIELDS.items():
        choices = field.metadata.get("choices")
        kind = Literal[choices] if choices else field.type
        annotation = _option(kind | None, field.metadata["help"], rich_help_panel=RECIPE)
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    command.__signature__ = signature.replace(parameters=parameters)
    return command


@app.callback()
def main() -> None:
    """Vision Transformer, Swin and Swin v2 for transformers."""


@app.command()
@with_recipe
def finetune(
    data: _option(
        str, "'digits', a folder of class folders (in train, val, test or not), a CSV file, a saved or Hub dataset."
    ) = "digits",
    family: _option(Family, "Model family, if --init does not say it.") = Family.swin,
    init: _option(str | None, "Folder or Hub id of weights to start from.") = None,
    out: _option(Path | None, "Where to save; runs/FAMILY-DATA if not given.") = None,
    speed: _option(Speed, "What learns: full, all weights; lora, adapters; probe, a head in seconds.") = Speed.full,
    recipe: _option(Path | None, "YAML or JSON file of recipe numbers, such as the metrics.json of a run.") = None,
    image_size: _option(int | None, "Side in pixels that the model works at.", min=1) = None,
    image_column: _option(str, "Column of the images in a dataset.") = "image",
    label_column: _option(str, "Column of the labels in a dataset.") = "label",
    skip_bad: _flag("--skip-bad", "Leave out files that are not images.") = False,
    keep_adapter: _flag("--keep-adapter", "Save the adapter of lora by itself, too.") = False,
    seed: _option(int, "Seed of weights, order and augmentation.") = 0,
    resume: _option(bool | None, "Go on from the last checkpoint or begin again; by default as it fits.") = None,
    workers: _option(int | None, "Processes that decode and resize images.", min=0, **ENGINE) = None,
    bf16: _flag("--bf16", "Work in bfloat16 where that is safe.", **ENGINE) = False,
    torch_compile: _flag("--torch-compile", "Compile the model first.", **ENGINE) = False,
    gradient_checkpointing: _flag("--gradient-checkpointing", "Less memory for more time.", **ENGINE) = False,
    deepspeed: _option(Path | None, "Configuration file of DeepSpeed.", **ENGINE) = None,
    **numbers: Any,
) -> None:
    """Fine-tune an image classifier, save it, load it back and report what it learned."""
    engine = {"bf16": bf16, "torch_compile": torch_compile, "gradient_checkpointing": gradient_checkpointing}
    engine = {name: True for name, wanted in engine.items() if wanted}
    if deepspeed is not None:
        engine["deepspeed"] = str(deepspeed)
    if workers is not None:
        engine |= {"dataloader_num_workers": workers, "dataloader_persistent_workers": workers > 0}
    options = {"image_size": image_size, "image_column": image_column, "label_column": label_column}
    options |= {"skip_bad": skip_bad, "keep_adapter": keep_adapter, "seed": seed, "resume": resume}
    given = {name: value for name, value in numbers.items() if value is not None}
    with errors_in_one_sentence("the same command goes on from the last finished epoch."):
        import datasets

        from .finetune import finetune as run
        from .processes import this_process

        datasets.disable_progress_bars()
        run(data, family.value, init, out, speed=speed.value, recipe=recipe, arguments=engine, **options, **given)
        this_process().destroy_process_group()


app.command()(evaluate)
app.command()(predict)
app.command()(convert)
app.command()(verify)
app.command()(publish)
app.command()(bench)
app.command()(explain)
app.command()(complexity)


if __name__ == "__main__":
    app()
