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
"""The words for what a run noted in `metrics.json`: scores, speeds, counts and the files beside it."""

REPORT = "report.html"
PICTURES = {
    "training_curve.png": "Loss, score and learning rate per epoch",
    "confusion_matrix.png": "Confusion matrix",
    "calibration.png": "How often the model is right, by how sure it is",
    "predictions.png": "Predictions on unseen images",
}
# Key of a score -> the Hub's word for it, and ours; the first that a run has is its headline.
SCORES = {
    "accuracy": ("accuracy", "Accuracy"),
    "mean_average_precision": ("mean_average_precision", "Mean average precision"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "micro_f1": ("f1", "Micro F1"),
    "exact_match": ("exact_match", "Exact match"),
    "expected_calibration_error": ("expected_calibration_error", "Expected calibration error"),
}
SPEEDS = {
    "full": "in full: every weight learns",
    "lora": "by LoRA: the head and small matrices beside the queries and values learn, the rest stays as it was",
    "probe": "by a probe: the backbone stays as it was, and a head is fitted to its features",
}


def score_names(key: str) -> tuple[str, str]:
    """Return the Hub's word for a score and its name for people: `top_5_accuracy` is "Top-5 accuracy"."""
    return SCORES.get(key, (key, key.capitalize().replace("_", "-", 1).replace("_", " ")))


def counts_of(images: dict[str, int | None]) -> str:
    """Say how many images each split has: "1293 training images, 144 validation images and 360 test images"."""
    names = {"train": "training"}
    parts = [f"{count} {names.get(split, split)} images" for split, count in images.items() if count]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
