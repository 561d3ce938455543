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
"""Fine-tuning with the Trainer of transformers: from images to a saved, checked and documented model."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import EarlyStoppingCallback, PreTrainedModel, ProgressCallback, Trainer, TrainingArguments, set_seed

from .data import ImageData, load_images, with_validation
from .errors import UserError, one_line
from .metrics import image_metrics
from .parameters import freeze
from .probe import probe
from .processes import on_cpu, one_complaint, this_process
from .recipe import Recipe, read_recipe, recipe_for
from .report import EpochTable, announce
from .rundir import complete_checkpoints, disk_errors, finish_move, remove_checkpoints, write_text
from .saving import probabilities, save_run
from .starting import CLASSES, build_model, family_of, with_adapters
from .trainer import ImageTrainer
from .transforms import ImageRows


SPEEDS = ("full", "lora", "probe")
# What `keep` and `patience` can go by; the first is the default.
METRICS = {
    False: ("accuracy", "macro_f1", "balanced_accuracy", "loss"),
    True: ("mean_average_precision", "macro_f1", "loss"),
}
# More workers than this only wait for each other at one disk.
MOST_WORKERS = 8


@one_complaint()
def finetune(
    data: str | Path = "digits",
    family: str = "swin",
    init: str | Path | None = None,
    out: str | Path | None = None,
    *,
    speed: str = "full",
    recipe: str | Path | None = None,
    image_size: int | None = None,
    image_column: str = "image",
    label_column: str = "label",
    skip_bad: bool = False,
    keep_adapter: bool = False,
    seed: int = 0,
    resume: bool | None = None,
    arguments: dict[str, Any] | None = None,
    **overrides: Any,
) -> Trainer:
    """Fine-tune a classifier on `data`, save it in `out` with its card and report, load it back and check it.

    `speed` is "full" (all weights), "lora" (small adapters, merged at the end) or "probe" (a head on frozen features).
    `overrides`, and the file `recipe`, replace numbers of the `Recipe`, `arguments` those of `TrainingArguments`.
    `resume` goes on from a checkpoint if there is one, True insists, False begins again. `UserError` is raised for what
    the user can mend.
    """
    started = time.monotonic()
    _check_speed(speed, init)
    images = load_images(data, image_column, label_column, skip_bad)
    family = family_of(str(init)) if init else family
    recipe = _recipe(family, images, init is not None, recipe, overrides)
    images = with_validation(images) if recipe.selects and speed != "probe" else images
    out = Path(out or Path("runs") / f"{family}-{images.name.replace('/', '-')}")
    settings = {"data": str(data), "family": family, "init": init and str(init), "speed": speed}
    settings |= {"image_size": image_size, "seed": seed}
    if this_process().is_main_process:
        announce(images, family, init, out, speed)
    model, processor, frozen, notes = _model(images, recipe, settings)
    with disk_errors(out):
        trainer = make_trainer(model, processor, images, recipe, out / "checkpoints", seed, frozen, arguments)
        if speed != "probe":
            _train(trainer, {**settings, **asdict(recipe)}, resume)
        record = {**settings, "seconds": round(time.monotonic() - started), "notes": notes}
        save_run(out, trainer, images, record, keep_adapter)
    this_process().wait_for_everyone()
    return trainer


def _check_speed(speed: str, init: str | Path | None) -> None:
    if speed not in SPEEDS:
        raise UserError(f"there is no speed {speed!r}: choose one of {', '.join(SPEEDS)}.")
    if speed != "full" and init is None:
        raise UserError(f"the speed {speed!r} starts from trained weights: say which with --init.")


def _recipe(
    family: str, images: ImageData, pretrained: bool, file: str | Path | None, overrides: dict[str, Any]
) -> Recipe:
    if family not in CLASSES:
        raise UserError(f"there is no family {family!r}: choose one of {', '.join(CLASSES)}.")
    numbers = {**(read_recipe(file) if file else {}), **overrides}
    recipe = recipe_for(family, len(images.train), pretrained, **numbers)
    known = METRICS[images.multi_label]
    if recipe.metric not in (*known, "auto"):
        raise UserError(f"images with such labels have no {recipe.metric!r}: choose one of {', '.join(known)}.")
    return replace(recipe, metric=known[0]) if recipe.metric == "auto" else recipe


def _model(
    images: ImageData, recipe: Recipe, settings: dict[str, Any]
) -> tuple[PreTrainedModel, Any, list[nn.Module], list[str]]:
    """Return a model that is ready for its speed, its processor, what of it is frozen, and what there is to note."""
    set_seed(settings["seed"])
    model, processor = build_model(settings["family"], images, recipe, settings["init"], settings["image_size"])
    if settings["speed"] == "probe":
        with this_process().main_process_first():  # the others find its features on the disk
            model, processor, notes = probe(model, processor, images, recipe.balance == "loss", settings["image_size"])
        return model, processor, [], notes
    if settings["speed"] == "lora":
        model = with_adapters(model, recipe.lora_rank)
    try:
        return model, processor, freeze(model, recipe.freeze), []
    except ValueError as error:
        raise UserError(f"freeze is {recipe.freeze}: {error}.") from error


def make_trainer(
    model: PreTrainedModel,
    processor: Any,
    images: ImageData,
    recipe: Recipe,
    folder: Path,
    seed: int = 0,
    frozen: Sequence[nn.Module] = (),
    arguments: dict[str, Any] | None = None,
) -> ImageTrainer:
    """Return a Trainer that follows `recipe`, keeps its checkpoints in `folder` and prints a line per epoch.

    `frozen` are modules that do not learn; `arguments` replace those of `TrainingArguments`.
    """
    labels = len(images.labels), images.multi_label
    metric = image_metrics(*labels)
    trainer = ImageTrainer(
        model=model,
        args=_training_arguments({**_arguments(recipe, len(images.train), folder, seed), **(arguments or {})}),
        recipe=recipe,
        multi_label=images.multi_label,
        frozen=frozen,
        processing_class=processor,
        train_dataset=ImageRows(images.train, processor, *labels, recipe, seed),
        eval_dataset=ImageRows(images.validation or images.test, processor, *labels),
        compute_metrics=lambda results: metric.compute(
            predictions=probabilities(results.predictions, images.multi_label), references=results.label_ids
        ),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(EpochTable("validation" if images.validation else "test"))
    if recipe.patience:
        trainer.add_callback(EarlyStoppingCallback(recipe.patience))
    return trainer


def _training_arguments(arguments: dict[str, Any]) -> TrainingArguments:
    try:
        return TrainingArguments(**arguments)
    except ImportError as error:
        missing = "deepspeed" if arguments.get("deepspeed") else one_line(error)
        raise UserError(f"a package is missing ({missing}): pip install it, or leave the argument out.") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"TrainingArguments do not take these arguments: {one_line(error)}") from error


def _arguments(recipe: Recipe, images: int, folder: Path, seed: int) -> dict[str, Any]:
    processes = this_process().num_processes
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes on this machine
    # On the CPU they would take from training what they give: digits on two cores, 0.136 s a step without, 0.157 with.
    workers = 0 if on_cpu() else min(MOST_WORKERS, max(1, (os.cpu_count() or 1) // beside))
    return {
        "output_dir": str(folder),
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": _images_at_once(recipe, images, processes),
        "per_device_eval_batch_size": 2 * max(1, recipe.batch_size // processes),
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "warmup_steps": recipe.warmup,
        "lr_scheduler_type": "cosine",
        "logging_strategy": "epoch",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": recipe.keep == "best",
        "metric_for_best_model": f"eval_{recipe.metric}",
        "greater_is_better": recipe.metric != "loss",
        "restore_callback_states_from_checkpoint": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": on_cpu(),
        "ddp_find_unused_parameters": False,
        "report_to": [],
        "disable_tqdm": False,
        "seed": seed,
    }


def _images_at_once(recipe: Recipe, images: int, processes: int) -> int:
    """Return how many images a process works on at once, so that all of them make up the recipe's batch.

    Raises `UserError` if that is no whole number; a data set smaller than a batch makes the batch smaller.
    """
    parts = processes * recipe.accumulation
    if recipe.batch_size % parts:
        raise UserError(
            f"batch_size {recipe.batch_size} does not divide into {processes} process(es) of {recipe.accumulation} "
            f"part(s): choose a multiple of {parts}."
        )
    at_once = min(recipe.batch_size, images) // parts
    if not at_once:
        raise UserError(f"{images} training images do not divide into {parts} parts: use fewer processes or parts.")
    return at_once


def _train(trainer: ImageTrainer, settings: dict[str, Any], resume: bool | None) -> None:
    """Train, from the last complete checkpoint if there is one; processes look for it after the first has tidied up."""
    folder = Path(trainer.args.output_dir)
    with this_process().main_process_first():
        if this_process().is_main_process:
            finish_move(folder.parent)
            _tidy(folder, settings, resume)
        found = complete_checkpoints(folder)
    if found and this_process().is_main_process:
        print(f"going on from {found[-1]}", flush=True)
    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)


def _tidy(folder: Path, settings: dict[str, Any], resume: bool | None) -> None:
    """Leave only checkpoints to go on from, and note the settings of the run for the next time."""
    if resume is False:
        remove_checkpoints(folder)
    found = complete_checkpoints(folder)
    if resume and not found:
        raise UserError(f"{folder.parent} has no checkpoint to resume: leave --resume out to begin.")
    noted = folder / "run.json"
    before = json.loads(noted.read_text()) if found and noted.exists() else settings
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed and not resume:
        key = changed[0]
        raise UserError(
            f"{folder.parent} holds an unfinished run with {key}={before.get(key)}, not {settings[key]}: "
            "add --resume to go on with it, --no-resume to begin again, or choose another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(noted, json.dumps(settings, indent=2))
