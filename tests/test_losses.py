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
"""The loss goes by the kind of labels and never changes the config (defect D8 of the peers)."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from tiny import FAMILIES, model_of, pixels


PROBABILITIES = torch.tensor([[0.7, 0.3, 0.0, 0.0, 0.0], [0.0, 0.1, 0.2, 0.3, 0.4]])


def classifier(family, labels=5, **numbers):
    return model_of(family, num_labels=labels, **numbers)


@pytest.mark.parametrize("family", FAMILIES)
def test_d8_soft_labels_are_trained_by_cross_entropy(family):
    model = classifier(family)
    output = model(pixels(64), labels=PROBABILITIES)
    assert torch.isclose(output.loss, -(PROBABILITIES * output.logits.log_softmax(-1)).sum(1).mean())
    assert model.config.problem_type is None
    numbers = torch.tensor([1, 4])
    hard = model(pixels(64), labels=numbers)
    assert torch.isclose(hard.loss, F.cross_entropy(hard.logits, numbers))
    assert model.config.problem_type is None


@pytest.mark.parametrize("family", FAMILIES)
def test_several_labels_are_the_configs_to_say(family):
    model = classifier(family, problem_type="multi_label_classification")
    labels = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    output = model(pixels(64), labels=labels)
    assert torch.isclose(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels.float()))


@pytest.mark.parametrize(("labels", "problem_type"), [(1, None), (3, "regression")])
def test_numbers_are_fitted_by_squares(labels, problem_type):
    model = classifier("hf_vit", labels, problem_type=problem_type)
    wanted = torch.arange(2.0 * labels).view(2, labels).squeeze(-1)
    output = model(pixels(64), labels=wanted)
    assert torch.isclose(output.loss, ((output.logits - wanted.view(2, labels)) ** 2).mean())
    assert model.config.problem_type == problem_type


def test_ignored_labels_count_for_nothing():
    model = classifier("hf_vit")
    output = model(pixels(64), labels=torch.tensor([3, -100]))
    assert torch.isclose(output.loss, F.cross_entropy(output.logits[:1], torch.tensor([3])))


def test_another_loss_can_be_set():
    model = classifier("hf_swin")
    model.loss_function = lambda labels, logits, config, **kwargs: logits.sum() * 0 + 7
    assert model(pixels(64), labels=torch.tensor([0, 1])).loss == 7


@pytest.mark.parametrize("soft", [False, True])
def test_the_plain_trainer_gives_parts_of_an_update_the_weight_of_their_images(soft, tmp_path):
    """It counts the elements of the labels of an update and leaves the division to the model."""

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            labels = torch.eye(5)[index % 5] * 0.9 + 0.02 if soft else torch.tensor(index % 5)
            return {"pixel_values": images[index], "labels": labels}

    images = pixels(64, batch=6)
    logs = []
    for batch, parts in ((6, 1), (2, 3)):
        torch.manual_seed(0)
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": parts, "max_steps": 2}
        settings |= {"logging_steps": 1, "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
        trainer = Trainer(
            classifier("hf_swin", drop_path_rate=0.0),
            TrainingArguments(str(tmp_path), **settings),
            train_dataset=Rows(),
        )
        trainer.train()
        logs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)
