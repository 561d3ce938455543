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
"""The metrics are scikit-learn's numbers, and evaluate accepts them."""

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from hf_swin.metrics import Accuracy, MacroF1


def labels(seed, classes=4, count=200):
    generator = np.random.default_rng(seed)
    return generator.integers(0, classes, count), generator.integers(0, classes, count)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn(seed):
    truth, guess = labels(seed)
    assert Accuracy().compute(predictions=guess, references=truth) == {"accuracy": accuracy_score(truth, guess)}
    expected = f1_score(truth, guess, average="macro")
    assert MacroF1().compute(predictions=guess, references=truth)["macro_f1"] == pytest.approx(expected)


def test_worked_by_hand():
    both = evaluate.combine([Accuracy(), MacroF1()])
    scores = both.compute(predictions=[0, 1, 2, 2], references=[0, 1, 2, 1])
    # F1 of the classes: 1, 2/3, 2/3.
    assert scores == {"accuracy": 0.75, "macro_f1": pytest.approx(7 / 9)}


def test_a_combination_can_be_used_again():
    both = evaluate.combine([Accuracy(), MacroF1()])
    for wrong in (0, 1):
        assert both.compute(predictions=[0, 1], references=[0, 1 - wrong])["accuracy"] == 1 - wrong / 2


def test_batches_add_up():
    truth, guess = labels(7)
    metric = Accuracy()
    for start in (0, 100):
        metric.add_batch(predictions=guess[start : start + 100], references=truth[start : start + 100])
    assert metric.compute()["accuracy"] == accuracy_score(truth, guess)
