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
"""Metrics of classification as `evaluate.Metric` classes; nothing is downloaded.

In code `evaluate.combine([Accuracy(), MacroF1()])`; by path `evaluate.load("hf_swin/metrics.py", "macro_f1")`, for
which the file imports nothing of this package.
"""

from typing import Any

import datasets
import evaluate
import numpy as np
from evaluate.evaluator import ImageClassificationEvaluator
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score, recall_score
from transformers import Pipeline


_NUMBER = datasets.Value("int64")
_NUMBERS = datasets.List(datasets.Value("int64"))
_PROBABILITIES = datasets.List(datasets.Value("float32"))
# What a metric may be given: (predictions, references). Lists come first: a list of one would pass for a number.
_TO_LABELS = (_PROBABILITIES, _NUMBER)
_NUMBERS_TO_LABELS = (_NUMBER, _NUMBER)
_TO_LABEL_SETS = (_PROBABILITIES, _NUMBERS)


class ClassificationMetric(evaluate.Metric):
    """Any metric of this file by its name: `ClassificationMetric("macro_f1")` is a `MacroF1`; without one, `Accuracy`.

    Predictions are probabilities (N, K), or class numbers (N,) where these are enough; references are class numbers
    (N,), or for several labels an image zeros and ones (N, K). Raises `ValueError` for a name that is no metric's.
    """

    name = "accuracy"
    inputs = [_TO_LABELS, _NUMBERS_TO_LABELS]

    def __new__(cls, config_name: str | None = None, **options: Any):
        if cls is ClassificationMetric:
            known = {metric.name: metric for metric in cls.__subclasses__()}
            if (config_name or cls.name) not in known:
                raise ValueError(f"there is no metric {config_name!r}: choose one of {', '.join(known)}.")
            cls = known[config_name or cls.name]
        return super().__new__(cls)

    def __init__(self, config_name: str | None = None, **options: Any):
        # In memory, because evaluation sets of images are small; several processes need files to meet.
        alone = options.get("num_process", 1) == 1
        super().__init__(config_name=self.name, **{"keep_in_memory": alone, **options})

    def _info(self) -> evaluate.MetricInfo:
        names = ("predictions", "references")
        info = evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            inputs_description=ClassificationMetric.__doc__,
            features=[datasets.Features(dict(zip(names, kinds, strict=True))) for kinds in self.inputs],
        )
        info.format = "numpy"  # as an argument it is refused for lists, which come as arrays just as well
        return info

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, Any]:
        return {self.name: self.score(predictions, references)}

    def score(self, predictions: np.ndarray, references: np.ndarray) -> Any:
        """Return the number; each class below says how."""
        raise NotImplementedError


class Accuracy(ClassificationMetric):
    """Top-1 accuracy: the part of the images whose most probable class is the true one; of equals the first."""

    name = "accuracy"

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return float(accuracy_score(references, _decided(predictions, references)))


class TopK(ClassificationMetric):
    """The part of the images whose true class is among the `k` most probable, as `top_{k}_accuracy`.

    Of equally probable classes the last count first, as in `sklearn.metrics.top_k_accuracy_score`.
    """

    name = "top_k_accuracy"
    inputs = [_TO_LABELS]

    def __init__(self, config_name: str | None = None, k: int = 5, **options: Any):
        if k < 1:
            raise ValueError(f"the {k} most probable classes are none: k is 1 or more.")
        self.k = k
        super().__init__(config_name, **options)

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        best = np.argsort(predictions, axis=1, kind="stable")[:, -self.k :]
        return {f"top_{self.k}_accuracy": float((best == references[:, None]).any(axis=1).mean())}


class MacroF1(ClassificationMetric):
    """The unweighted mean over the classes of F1, the harmonic mean of precision and recall.

    The classes are those of the references or predictions; of label sets, where 0.5 decides, all K.
    """

    name = "macro_f1"
    inputs = [_TO_LABEL_SETS, _TO_LABELS, _NUMBERS_TO_LABELS]

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return float(f1_score(references, _decided(predictions, references), average="macro", zero_division=0))


class BalancedAccuracy(ClassificationMetric):
    """The mean recall of the classes that occur in the references: each counts the same, however rare."""

    name = "balanced_accuracy"

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        # scikit-learn's `balanced_accuracy_score`, without its warning about classes that are only predicted.
        options = {"labels": np.unique(references), "average": "macro", "zero_division": 0}
        return float(recall_score(references, _decided(predictions, references), **options))


class PerClassRecall(ClassificationMetric):
    """For each class the part of its images that were found, as a list; NaN for a class that does not occur.

    The list has K numbers for probabilities (N, K); for class numbers it ends with the highest seen.
    """

    name = "per_class_recall"

    def score(self, predictions: np.ndarray, references: np.ndarray) -> list[float]:
        options = {"labels": _classes(predictions, references), "average": None, "zero_division": np.nan}
        return recall_score(references, _decided(predictions, references), **options).tolist()


class ConfusionMatrix(ClassificationMetric):
    """How many images of a class (row) were taken for which (column), as a list of lists; sized as `PerClassRecall`."""

    name = "confusion_matrix"

    def score(self, predictions: np.ndarray, references: np.ndarray) -> list[list[int]]:
        labels = _classes(predictions, references)
        return confusion_matrix(references, _decided(predictions, references), labels=labels).tolist()


class ExpectedCalibrationError(ClassificationMetric):
    """How far the probability of the predicted class is from the part that is right: 0 for a model that knows itself.

    The difference in each of 15 equal bins, open below, weighted by its images: Guo et al. (2017), section 2, eq. 3.
    """

    name = "expected_calibration_error"
    inputs = [_TO_LABELS]
    bins = 15

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        confidence = predictions.max(axis=1).astype(np.float64)
        right = predictions.argmax(axis=1) == references
        members = np.searchsorted(np.linspace(0, 1, self.bins + 1)[1:-1], confidence)
        return float(np.abs(np.bincount(members, right - confidence)).sum() / len(references))


class MicroF1(ClassificationMetric):
    """F1 of all labels of all images together, for label sets; a label is given above 0.5."""

    name = "micro_f1"
    inputs = [_TO_LABEL_SETS]

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return float(f1_score(references, _decided(predictions, references), average="micro", zero_division=0))


class MeanAveragePrecision(ClassificationMetric):
    """The mean over the labels of the area under precision and recall, for label sets.

    Labels that no image has are left out, where scikit-learn would count a 0; NaN if there is no other.
    """

    name = "mean_average_precision"
    inputs = [_TO_LABEL_SETS]

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        present = references.any(axis=0)
        if not present.any():
            return float("nan")
        return float(average_precision_score(references[:, present], predictions[:, present], average="macro"))


class ExactMatch(ClassificationMetric):
    """The part of the images with every label right, for label sets; a label is given above 0.5."""

    name = "exact_match"
    inputs = [_TO_LABEL_SETS]

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return float(accuracy_score(references, _decided(predictions, references)))


def _decided(predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) as what the references are: class numbers (N,), or zeros and ones (N, K)."""
    if predictions.ndim == 1:
        return predictions
    return (predictions > 0.5).astype(int) if references.ndim == 2 else predictions.argmax(axis=1)


def _classes(predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    return np.arange(predictions.shape[1] if predictions.ndim == 2 else max(predictions.max(), references.max()) + 1)


def image_metrics(num_labels: int, multi_label: bool = False) -> evaluate.CombinedEvaluations:
    """Return the metrics that are one number each, for one pass over probabilities (N, num_labels)."""
    if multi_label:
        return evaluate.combine([MacroF1(), MicroF1(), MeanAveragePrecision(), ExactMatch()])
    top_5 = [TopK(k=5)] if num_labels > 5 else []
    return evaluate.combine([Accuracy(), *top_5, MacroF1(), BalancedAccuracy(), ExpectedCalibrationError()])


class ImageEvaluator(ImageClassificationEvaluator):
    """`evaluate.evaluator("image-classification")` that takes a pipeline too, and knows its metric without network.

    evaluate 0.4.6 asks whether a pipeline is a model of TensorFlow, a class that transformers no longer has.
    """

    def __init__(self):
        super().__init__(default_metric_name=__file__)

    def prepare_pipeline(self, model_or_pipeline: Any, *args: Any, **options: Any) -> Any:
        """Return the pipeline given, or one of the model or folder given."""
        if isinstance(model_or_pipeline, Pipeline):
            return model_or_pipeline
        return super().prepare_pipeline(model_or_pipeline, *args, **options)
