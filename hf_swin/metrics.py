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
"""Metrics of classification as `evaluate.Metric` classes, for `evaluate.combine`; nothing is downloaded."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


class _LabelMetric(evaluate.Metric):
    """A metric of predicted and true class numbers; kept in memory because evaluation sets of images are small."""

    name: str
    description: str

    def __init__(self, **kwargs):
        super().__init__(config_name=self.name, **{"keep_in_memory": True, **kwargs})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description="predictions, references: class numbers, one of each per image",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )


class Accuracy(_LabelMetric):
    """Top-1 accuracy, between 0 and 1."""

    name = "accuracy"
    description = "The part of the images whose most probable class is the true one."

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_LabelMetric):
    """The mean of the F1 scores of the classes, between 0 and 1; each class counts the same, however rare."""

    name = "macro_f1"
    description = "The unweighted mean over classes of the harmonic mean of precision and recall."

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0))}
