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
import shutil
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import evaluate
import torch
import transformers
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedConfig,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    ViTImageProcessor,
    pipeline,
    set_seed,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

import hf_swin

from .card import model_card
from .data import ImageData, check_patch, load_images
from .errors import UserError
from .metrics import Accuracy, MacroF1
from .recipe import Recipe, parameter_groups, recipe_for
from .report import EpochTable, Prediction, announce, confusion_matrix, prediction_sheet, summary, training_curve
from .rundir import complete_checkpoints, disk_errors, finish_move, saved_whole, write_text
from .transforms import AUGMENTATIONS, preprocessing, to_rgb


CLASSES = {
    "swin": (hf_swin.HfSwinConfig, hf_swin.HfSwinForImageClassification),
    "swin_v2": (hf_swin.HfSwinV2Config, hf_swin.HfSwinV2ForImageClassification),
    "vit": (hf_swin.HfViTConfig, hf_swin.HfViTForImageClassification),
}
FAMILY_OF = {
    model_type: family
    for family, (config_class, _) in CLASSES.items()
    for model_type in (config_class.model_type, *config_class.stock_defaults)
}
# Images on the sheet of predictions: a fixed random choice, then the most confident mistakes.
SHOWN_IMAGES, SHOWN_MISTAKES = 24, 8


def finetune(
    data: str | Path = "digits",
    family: str = "swin",
    init: str | Path | None = None,
    out: str | Path | None = None,
    *,
    image_size: int | None = None,
    image_column: str = "image",
    label_column: str = "label",
    skip_bad: bool = False,
    seed: int = 0,
    resume: bool | None = None,
    **overrides: Any,
) -> Trainer:
    """Fine-tune a classifier on `data`, save it in `out` with its card and pictures, load it back and check it.

    `overrides` replace numbers of the recipe (see `Recipe`). `resume=None` goes on from the last complete checkpoint of
    the same command, True insists on one, False begins again. Raises `UserError` for what the user can mend.
    """
    started = time.monotonic()
    images = load_images(data, image_column, label_column, skip_bad)
    family = _family_of(str(init)) if init else family
    recipe = _recipe(family, images, init is not None, overrides)
    out = Path(out or Path("runs") / f"{family}-{images.name.replace('/', '-')}")
    settings = {"data": str(data), "family": family, "init": init and str(init), "image_size": image_size, "seed": seed}
    announce(images, family, init, out)
    set_seed(seed)
    model, processor = build_model(family, images, recipe, init, image_size)
    with disk_errors(out):
        finish_move(out)
        checkpoint = _checkpoint(out / "checkpoints", {**settings, **asdict(recipe)}, resume)
        trainer = make_trainer(model, processor, images, recipe, out / "checkpoints", seed)
        if checkpoint:
            print(f"going on from {checkpoint}")
        trainer.train(resume_from_checkpoint=checkpoint)
        results = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval")
        facts = {**settings, "seconds": round(time.monotonic() - started), **_facts(images, results.metrics)}
        shown = _save(out, trainer, images, results, facts)
    summary(out, shown, facts)
    return trainer


def _family_of(init: str) -> str:
    try:
        model_type = PreTrainedConfig.get_config_dict(init)[0].get("model_type")
    except (OSError, ValueError) as error:
        raise UserError(f"{init!r} holds no model: give --init a folder with a config.json or a Hub id.") from error
    if model_type not in FAMILY_OF:
        raise UserError(f"{init!r} is a {model_type!r} model: --init takes {', '.join(sorted(FAMILY_OF))}.")
    return FAMILY_OF[model_type]


def _recipe(family: str, images: ImageData, pretrained: bool, overrides: dict[str, Any]) -> Recipe:
    if family not in CLASSES:
        raise UserError(f"there is no family {family!r}: choose one of {', '.join(CLASSES)}.")
    unknown = sorted(set(overrides) - {field.name for field in fields(Recipe)})
    if unknown:
        raise UserError(f"a recipe has no {unknown[0]!r}: it has {', '.join(field.name for field in fields(Recipe))}.")
    recipe = recipe_for(family, len(images.train), pretrained, **overrides)
    if recipe.augmentation not in AUGMENTATIONS:
        raise UserError(f"there is no augmentation {recipe.augmentation!r}: choose one of {', '.join(AUGMENTATIONS)}.")
    return recipe


def build_model(
    family: str, images: ImageData, recipe: Recipe, init: str | Path | None = None, image_size: int | None = None
) -> tuple[transformers.PreTrainedModel, Any]:
    """Return a model and its image processor; weights of `init` or random; `image_size` is a side in pixels."""
    config_class, model_class = CLASSES[family]
    names = dict(enumerate(images.labels))
    numbers = {name: index for index, name in names.items()}
    wanted = {"id2label": names, "label2id": numbers, "drop_path_rate": recipe.drop_path}
    if init:
        model = model_class.from_pretrained(init, ignore_mismatched_sizes=True, **wanted)
        processor = _processor_of(init, image_size or model.config.image_size)
        if image_size:
            processor.size = {"height": image_size, "width": image_size}
    else:
        try:
            config = config_class.for_image_size(image_size or images.image_size, **wanted)
        except ValueError as error:
            raise UserError(f"--image-size: {error}.") from error
        model = model_class(config)
        processor = _new_processor(config.image_size, mean=[0.5] * 3, std=[0.5] * 3)
    check_patch(images, model.config.patch_size)
    return model, processor


def _new_processor(size: int | list[int], mean: list[float], std: list[float]) -> ViTImageProcessor:
    height, width = (size, size) if isinstance(size, int) else size
    bicubic = PILImageResampling.BICUBIC
    side = {"height": height, "width": width}
    return ViTImageProcessor(size=side, resample=bicubic, image_mean=mean, image_std=std, do_convert_rgb=True)


def _processor_of(init: str | Path, size: int | list[int]) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(init)
    except (OSError, ValueError):  # weights without a preprocessor_config.json: what ImageNet weights expect
        return _new_processor(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


class _ImageTrainer(Trainer):
    """The Trainer, with this package's choice of what weight decay leaves alone."""

    recipe: Recipe

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, numbers = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(parameter_groups(model, self.recipe), **numbers)
        return self.optimizer


def make_trainer(model, processor, images: ImageData, recipe: Recipe, folder: Path, seed: int = 0) -> Trainer:
    """Return a Trainer that follows `recipe`, keeps its checkpoints in `folder` and prints a line per epoch."""
    metric = evaluate.combine([Accuracy(), MacroF1()])
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=2 * recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="cosine",
        label_smoothing_factor=recipe.label_smoothing,
        logging_strategy="epoch",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=False,
        seed=seed,
    )
    trainer = _ImageTrainer(
        model=model,
        args=arguments,
        processing_class=processor,
        train_dataset=images.train.with_transform(preprocessing(processor, recipe.augmentation)),
        eval_dataset=images.test.with_transform(preprocessing(processor)),
        compute_metrics=lambda p: metric.compute(predictions=p.predictions.argmax(-1), references=p.label_ids),
    )
    trainer.recipe = recipe
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(EpochTable)
    return trainer


def _checkpoint(folder: Path, settings: dict[str, Any], resume: bool | None) -> str | None:
    """Return the last complete checkpoint to go on from, and note the settings of the run for the next time."""
    if resume is False:
        shutil.rmtree(folder, ignore_errors=True)
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
    return str(found[-1]) if found else None


def _save(out: Path, trainer: Trainer, images: ImageData, results: Any, facts: dict) -> list[Prediction]:
    """Write everything the run leaves behind, check that it loads, and only then let it replace what was there."""
    probabilities = torch.tensor(results.predictions).softmax(-1)
    predicted, truth = probabilities.argmax(-1).tolist(), results.label_ids.tolist()
    chosen = _choose(probabilities, truth)
    with saved_whole(out) as folder:
        trainer.model.save_pretrained(folder)
        trainer.processing_class.save_pretrained(folder)
        write_text(folder / "metrics.json", json.dumps({**facts, "recipe": asdict(trainer.recipe)}, indent=2) + "\n")
        shown = _load_back(folder, images, chosen, probabilities[chosen])
        training_curve(trainer.state.log_history, folder / "training_curve.png")
        confusion_matrix(truth, predicted, images.labels, folder / "confusion_matrix.png")
        wrong = sum(a != b for a, b in zip(predicted, truth, strict=True))
        title = f"{len(shown)} of {len(truth)} unseen images; {wrong} of all are wrong and come last"
        prediction_sheet(shown, folder / "predictions.png", title)
        model_card(folder, out.name).save(folder / "README.md")
    shutil.rmtree(out / "checkpoints")
    return shown


def _choose(probabilities: torch.Tensor, truth: list[int]) -> list[int]:
    confidence, predicted = probabilities.max(-1)
    mistakes = (predicted != torch.tensor(truth)).nonzero().flatten().tolist()
    mistakes = sorted(mistakes, key=lambda index: -confidence[index])[:SHOWN_MISTAKES]
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(0)).tolist()
    room = SHOWN_IMAGES + SHOWN_MISTAKES - len(mistakes)
    return [index for index in order if index not in mistakes][:room] + mistakes


def _load_back(folder: Path, images: ImageData, chosen: list[int], expected: torch.Tensor) -> list[Prediction]:
    """Predict the chosen test images with the saved files alone, as a user would; RuntimeError if they disagree."""
    rows = images.test.select(chosen)
    pictures = [to_rgb(row["image"]) for row in rows]
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        reloaded = model(**processor(pictures, return_tensors="pt")).logits.softmax(-1)
    answers = [best[0] for best in pipeline("image-classification", model=str(folder), top_k=1)(pictures)]
    scores = torch.tensor([answer["score"] for answer in answers])
    for name, found, wanted in (("model", reloaded, expected), ("pipeline", scores, expected.max(-1).values)):
        if not torch.allclose(found.float(), wanted.float(), atol=1e-3):
            raise RuntimeError(f"the saved {name} does not repeat the predictions of the trained one")
    return [
        Prediction(picture, images.labels[row["label"]], answer["label"], answer["score"])
        for picture, row, answer in zip(pictures, rows, answers, strict=True)
    ]


def _facts(images: ImageData, metrics: dict[str, float]) -> dict[str, Any]:
    scores = {name: metrics[f"eval_{name}"] for name in ("accuracy", "macro_f1", "loss")}
    counts = {"train_images": len(images.train), "test_images": len(images.test), "skipped_files": images.skipped}
    versions = {"hf_swin": hf_swin.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    return {**scores, **counts, "labels": images.labels, "versions": versions}
