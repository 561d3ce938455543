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
"""What the Trainer of this package adds: losses, weights for rare classes, averaged and frozen weights, its clock."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F
from transformers import ViTImageProcessor

import hf_swin
from hf_swin.data import ImageData
from hf_swin.errors import UserError
from hf_swin.finetune import make_trainer
from hf_swin.parameters import freeze
from hf_swin.recipe import recipe_for
from hf_swin.trainer import FAILED, class_weights


PROCESSOR = ViTImageProcessor(size={"height": 28, "width": 28}, do_convert_rgb=True)


def data_of(labels, multi_label=False):
    """Pictures of one grey each, dark for class 0 and lighter for the others."""
    greys = [60 + 60 * (max(label, default=0) if multi_label else label) for label in labels]
    columns = {"image": [Image.new("L", (28, 28), grey) for grey in greys], "label": labels}
    columns["name"] = [f"{index}.png" for index in range(len(labels))]
    split = datasets.Dataset.from_dict(columns)
    return ImageData("greys", split, None, split, ["a", "b", "c"], multi_label, (28, 28), 28, {})


def trainer_of(
    tmp_path, labels=(0, 1, 2, 0, 1, 2), family="ViT", multi_label=False, frozen=0, arguments=None, **numbers
):
    torch.manual_seed(0)
    config = getattr(hf_swin, f"Hf{family}Config").for_image_size(28, num_labels=3, drop_path_rate=0.0)
    model = getattr(hf_swin, f"Hf{family}ForImageClassification")(config)
    numbers = {"epochs": 2, "batch_size": 2, "augmentation": "none", "metric": "loss", **numbers}
    recipe = recipe_for("vit", 10, pretrained=False, **numbers)
    arguments = {
        "dataloader_num_workers": 0,
        "dataloader_persistent_workers": False,
        "use_cpu": True,
        **(arguments or {}),
    }
    parts = freeze(model, recipe.freeze)
    images = data_of(list(labels), multi_label)
    return make_trainer(model, PROCESSOR, images, recipe, tmp_path / "checkpoints", 0, parts, arguments)


def loss_of(trainer, logits, labels, training=True):
    class Model(nn.Module):
        def forward(self, pixel_values):
            return type("Output", (), {"logits": logits})

    model = Model().train(training)
    inputs = {"pixel_values": None, "labels": labels, "rows": torch.arange(len(labels))}
    return trainer.compute_loss(model, inputs)


LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.5, -0.5, 0.0]])


def test_the_loss_is_smoothed_while_training_only(tmp_path):
    trainer, labels = trainer_of(tmp_path, label_smoothing=0.3), torch.tensor([1, 2])
    assert torch.isclose(loss_of(trainer, LOGITS, labels), F.cross_entropy(LOGITS, labels, label_smoothing=0.3))
    assert torch.isclose(loss_of(trainer, LOGITS, labels, training=False), F.cross_entropy(LOGITS, labels))


def test_d8_soft_labels_are_trained_by_smoothed_cross_entropy(tmp_path):
    trainer, labels = trainer_of(tmp_path, label_smoothing=0.1), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    smooth = labels * 0.9 + 0.1 / 3
    assert torch.isclose(loss_of(trainer, LOGITS, labels), -(smooth * LOGITS.log_softmax(-1)).sum(1).mean())


def test_rare_classes_weigh_more_and_the_parts_of_an_update_the_same(tmp_path):
    labels = [0] * 8 + [1] * 3 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels, 3, False), expected, rtol=1e-6)
    trainer = trainer_of(tmp_path, labels, balance="loss", label_smoothing=0.0)
    each = F.cross_entropy(LOGITS, torch.tensor([2, 0]), reduction="none")
    wanted = (each * torch.tensor([expected[2], expected[0]])).mean()
    assert torch.isclose(loss_of(trainer, LOGITS, torch.tensor([2, 0])), wanted.float())
    assert torch.isclose(loss_of(trainer, LOGITS, torch.tensor([2, 0]), training=False), each.mean())


def test_several_labels_are_trained_by_binary_cross_entropy(tmp_path):
    labels = [[0], [0, 1], [0], []]
    assert class_weights(labels, 3, True).tolist() == [pytest.approx(1 / 3), 3.0, 3.0]
    trainer = trainer_of(tmp_path, labels, multi_label=True, balance="loss")
    wanted = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    expected = F.binary_cross_entropy_with_logits(LOGITS, wanted, pos_weight=torch.tensor([1 / 3, 3.0, 3.0]))
    assert torch.isclose(loss_of(trainer, LOGITS, wanted), expected)


def test_balanced_sampling_draws_the_classes_equally(tmp_path):
    labels = [0] * 90 + [1] * 9 + [2]
    sampler = trainer_of(tmp_path, labels, balance="sampling")._get_train_sampler()
    drawn = []
    for epoch in range(30):
        sampler.set_epoch(epoch)
        drawn += [labels[row] for _, row in sampler]
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), 1 / 3, atol=0.03)


def test_sampling_several_labels_goes_by_the_rarest(tmp_path):
    labels = [[0]] * 90 + [[0, 1]] * 10
    sampler = trainer_of(tmp_path, labels, multi_label=True, balance="sampling")._get_train_sampler()
    rare = [row >= 90 for _, row in sampler]
    assert np.mean(rare) > 0.7
    trainer_of(tmp_path, [[], [0], [1], [2]], multi_label=True, balance="sampling")._get_train_sampler()


@pytest.mark.parametrize("family", ["Swin", "SwinV2", "ViT"])
def test_mixing_augmenting_and_decaying_train_end_to_end(family, tmp_path):
    numbers = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25, "augmentation": "randaugment", "layer_decay": 0.7}
    trainer = trainer_of(tmp_path, family=family, ema=0.9, clip=0.5, drop_path=0.1, **numbers)
    trainer.train()
    assert trainer.model.config.problem_type is None
    assert trainer.evaluate()["eval_loss"] < 5


def test_no_number_as_loss_stops_with_step_rate_and_files(tmp_path):
    trainer = trainer_of(tmp_path, learning_rate=0.5)
    step = trainer.compute_loss
    calls = []

    def poisoned(*args, **kwargs):
        calls.append(0)
        return step(*args, **kwargs) * (float("nan") if len(calls) == 2 else 1)

    trainer.compute_loss = poisoned
    with pytest.raises(
        UserError, match=r"loss is nan at step 2, learning rate 0\.\d+, on \d\.png, \d\.png, all named in"
    ):
        trainer.train()
    named = (tmp_path / "checkpoints" / FAILED).read_text().split()
    assert len(named) == 2 and set(named) <= {f"{index}.png" for index in range(6)}
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_frozen_parts_do_not_change_and_do_not_drop(tmp_path):
    trainer = trainer_of(tmp_path, freeze=3)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    layers, seen = trainer.model.vit.layers, []
    layers[0].register_forward_pre_hook(lambda *_: seen.append([layers[index].training for index in (0, 2, 3)]))
    trainer.train()
    assert [False, False, True] in seen and [True, True, True] not in seen
    for name, value in trainer.model.state_dict().items():
        still = "embeddings" in name or any(f"layers.{index}." in name for index in range(3))
        if still or name.endswith("weight"):
            assert torch.equal(value, before[name]) == still, name


def test_averaged_weights_are_evaluated_and_kept(tmp_path):
    """By hand: the mean after each update, forgetting its start as 2/11, 3/12, 4/13 … while that is less."""
    trainer = trainer_of(tmp_path, ema=0.25, epochs=1, batch_size=2)
    name, seen = "classifier.weight", []
    start = trainer.model.state_dict()[name].clone()
    trainer.create_optimizer()
    trainer.optimizer.register_step_post_hook(lambda *_: seen.append(trainer.model.state_dict()[name].clone()))
    trainer.train()
    assert len(seen) == 3
    mean = seen[0]  # the first update is copied
    for count, value in enumerate(seen[1:], start=1):
        kept = min(0.25, (1 + count) / (10 + count))
        mean = kept * mean + (1 - kept) * value
    assert not torch.allclose(mean, start)
    torch.testing.assert_close(trainer.model.state_dict()[name], mean)
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(logged[-1], rel=1e-5)


@pytest.mark.parametrize("numbers", [{"ema": 0.9}, {"keep": "best", "ema": 0.5}, {"patience": 2, "keep": "best"}])
def test_a_resumed_run_ends_like_an_unbroken_one_to_the_bit(numbers, tmp_path):
    whole = trainer_of(tmp_path / "whole", epochs=4, learning_rate=0.02, **numbers)
    whole.train()

    class Stop(Exception):
        pass

    broken = trainer_of(tmp_path / "broken", epochs=4, learning_rate=0.02, **numbers)
    evaluate = broken.evaluate

    def stop(*args, **kwargs):
        if broken.state.epoch >= 3:
            raise Stop
        return evaluate(*args, **kwargs)

    broken.evaluate = stop
    with pytest.raises(Stop):
        broken.train()
    again = trainer_of(tmp_path / "broken", epochs=4, learning_rate=0.02, **numbers)
    again.train(resume_from_checkpoint=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    scores = [[entry.get("eval_loss") for entry in trainer.state.log_history] for trainer in (whole, again)]
    assert scores[0] == scores[1]


def test_the_best_epoch_is_kept(tmp_path):
    trainer = trainer_of(tmp_path, epochs=4, keep="best", learning_rate=0.05, warmup=0)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_patience_ends_a_run_that_does_not_get_better(tmp_path):
    trainer = trainer_of(tmp_path, epochs=30, keep="best", learning_rate=1e-12, patience=2)
    trainer.train()
    assert trainer.state.epoch <= 4


def test_the_clock_counts_steps_and_waiting(tmp_path):
    trainer = trainer_of(tmp_path)
    assert trainer.timing() == {}
    trainer.train()
    timing = trainer.timing()
    assert timing["steps"] == 6
    assert 0 < timing["waiting_for_data"] < 1 and timing["seconds_per_step"] > 0


def test_checkpointing_bf16_and_compiling_are_the_trainers_own(tmp_path):
    engine = {"gradient_checkpointing": True, "bf16": True, "torch_compile": True, "torch_compile_backend": "eager"}
    trainer = trainer_of(tmp_path, arguments=engine, epochs=1)
    trainer.train()
    assert trainer.args.bf16 and trainer.args.torch_compile
    assert next(trainer.model.parameters()).dtype == torch.float32
