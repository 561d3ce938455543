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
"""What a run leaves behind: the model, checked by loading it back, its numbers, pictures, report and card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import hf_swin

from .card import model_card
from .data import ImageData
from .pictures import Prediction
from .processes import this_process
from .report import Answers, summary, write_report
from .rundir import remove_checkpoints, saved_whole, write_text
from .trainer import ImageTrainer
from .transforms import ImageRows, prepared, to_rgb


# Images on the sheet of predictions: a fixed random choice, then the most confident mistakes.
SHOWN_IMAGES, SHOWN_MISTAKES = 24, 8


def probabilities(logits: np.ndarray, multi_label: bool) -> np.ndarray:
    """Turn logits (N, K) into probabilities (N, K): of one class for each image, or of each label by itself."""
    logits = torch.from_numpy(np.asarray(logits, dtype=np.float32))
    return (logits.sigmoid() if multi_label else logits.softmax(-1)).numpy()


def save_run(
    out: Path, trainer: ImageTrainer, images: ImageData, record: dict[str, Any], keep_adapter: bool = False
) -> None:
    """Answer the test split and save everything, which replaces what `out` held only after it was loaded back.

    All processes take part in the answers; the first one writes. Raises `RuntimeError` if the saved model differs.
    """
    test = ImageRows(images.test, trainer.processing_class, len(images.labels), images.multi_label)
    results = trainer.predict(test, metric_key_prefix="test")
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.in_pieces else None
    if not this_process().is_main_process:
        return
    answers = Answers(images.test, probabilities(results.predictions, images.multi_label), results.label_ids)
    record = {**record, **_facts(trainer, images, results.metrics)}
    if record["speed"] == "probe":  # nothing else of the recipe has a part in it
        record["recipe"] = {"balance": trainer.recipe.balance}
    with saved_whole(out) as folder:
        _save_model(folder, trainer, weights, keep_adapter)
        write_text(folder / "metrics.json", json.dumps(record, indent=2) + "\n")
        exact = trainer.accelerator.mixed_precision == "no"
        shown = _load_back(folder, answers, images, tolerance=1e-3 if exact else 5e-2)
        write_report(folder, record, trainer.state.log_history, answers, shown)
        model_card(folder, out.name).save(folder / "README.md")
    remove_checkpoints(out / "checkpoints")
    summary(out, shown, record)


def _save_model(folder: Path, trainer: ImageTrainer, weights: dict[str, Any] | None, keep_adapter: bool) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):  # LoRA; where no adapter is, nothing can be merged or kept
        if keep_adapter:
            model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(folder, state_dict=weights)
    trainer.processing_class.save_pretrained(folder)


def _facts(trainer: ImageTrainer, images: ImageData, metrics: dict[str, float]) -> dict[str, Any]:
    seconds = ("test_runtime", "test_samples_per_second", "test_steps_per_second", "test_model_preparation_time")
    scores = {key.removeprefix("test_"): value for key, value in metrics.items() if key not in seconds}
    return {
        "scores": scores,
        "labels": images.labels,
        "multi_label": images.multi_label,
        "images": images.summary,
        "recipe": asdict(trainer.recipe),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "timing": trainer.timing(),
        "history": trainer.state.log_history,
        "versions": {
            "hf_swin": hf_swin.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        },
    }


def _load_back(folder: Path, answers: Answers, images: ImageData, tolerance: float) -> list[Prediction]:
    """Answer some test images with the saved files alone, as a user would; RuntimeError if probabilities differ."""
    confidence = _confidence(answers)
    chosen = _choose(answers.right, confidence)
    rows = answers.images.select(chosen)
    pictures = [to_rgb(row["image"]) for row in rows]
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(prepared(AutoImageProcessor.from_pretrained(folder), pictures)).logits.float()
    by_model = probabilities(logits, answers.multi_label)
    said = pipeline("image-classification", model=str(folder), top_k=len(images.labels))(pictures)
    scores = [{answer["label"]: answer["score"] for answer in answer_list} for answer_list in said]
    by_pipeline = np.array([[score[label] for label in images.labels] for score in scores])
    for name, found in (("model", by_model), ("pipeline", by_pipeline)):
        if not np.allclose(found, answers.probabilities[chosen], atol=tolerance):
            raise RuntimeError(f"the saved {name} does not repeat the predictions of the trained one")
    return [
        Prediction(
            picture, _named(answers.truth[index], images), _named(answers.predicted[index], images), confidence[index]
        )
        for picture, index in zip(pictures, chosen, strict=True)
    ]


def _confidence(answers: Answers) -> np.ndarray:
    """The probability of what is said of each image (images,); of several labels, that of the least certain one."""
    if answers.multi_label:
        return np.where(answers.predicted, answers.probabilities, 1 - answers.probabilities).min(1)
    return answers.probabilities.max(1)


def _named(answer: np.ndarray | int, images: ImageData) -> str:
    """The name of a class number, or those of a row of ones and zeros."""
    if not images.multi_label:
        return images.labels[answer]
    return ", ".join(images.labels[index] for index in np.flatnonzero(answer)) or "none"


def _choose(right: np.ndarray, confidence: np.ndarray) -> list[int]:
    mistakes = sorted(np.flatnonzero(~right).tolist(), key=lambda index: -confidence[index])[:SHOWN_MISTAKES]
    order = np.random.default_rng(0).permutation(len(right)).tolist()
    room = SHOWN_IMAGES + SHOWN_MISTAKES - len(mistakes)
    return [index for index in order if index not in mistakes][:room] + mistakes
