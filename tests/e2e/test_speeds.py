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
"""The three speeds and the kinds of data, from the command line to a model that opens elsewhere."""

import csv
import json

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline
from typer.testing import CliRunner

from hf_swin import HfSwinConfig, HfSwinForImageClassification, HfViTConfig, HfViTForImageClassification
from hf_swin.cli import app
from hf_swin.starting import new_processor


GREYS = {"black": 20, "grey": 120, "white": 230}


@pytest.fixture(autouse=True)
def features_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))


def picture(grey, seed):
    noise = np.random.default_rng(seed).integers(-15, 15, (28, 28))
    return Image.fromarray((grey + noise).astype(np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """train, val and test folders of three classes."""
    root = tmp_path_factory.mktemp("greys")
    for number, (split, copies) in enumerate((("train", 10), ("val", 3), ("test", 4))):
        for name, grey in GREYS.items():
            (root / split / name).mkdir(parents=True)
            for copy in range(copies):
                picture(grey, 100 * number + copy).save(root / split / name / f"{copy}.png")
    return root


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    """Weights of each family that were not trained for these classes."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("init")
    for name, model_class, config_class in (
        ("vit", HfViTForImageClassification, HfViTConfig),
        ("swin", HfSwinForImageClassification, HfSwinConfig),
    ):
        model_class(config_class.for_image_size(28, num_labels=5)).save_pretrained(root / name)
        new_processor(28).save_pretrained(root / name)
    return root


def finetune(*arguments, code=0):
    result = CliRunner().invoke(app, ["finetune", *map(str, arguments), "--workers", "0"])
    assert result.exit_code == code, result.output + result.stderr
    return result.stdout + result.stderr


def record_of(out):
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize("family", ["vit", "swin"])
def test_a_probe_fits_a_head_and_leaves_the_backbone(family, folders, init, tmp_path):
    out = tmp_path / "run"
    said = finetune("--data", folders, "--init", init / family, "--speed", "probe", "--out", out)
    record = record_of(out)
    assert record["speed"] == "probe" and record["timing"] == {}
    assert record["scores"]["accuracy"] == 1.0
    assert any("accuracy" in note for note in record["notes"]) and "left-out score" in said
    trained, start = load_file(out / "model.safetensors"), load_file(init / family / "model.safetensors")
    same = [name for name in trained if "layernorm" not in name.split(".")[-2] and not name.startswith("classifier")]
    same = [name for name in same if name.split(".")[1] != "layernorm"]
    assert len(same) > 10 and all(torch.equal(trained[name], start[name]) for name in same)
    assert {path.name for path in out.iterdir()} >= {"report.html", "README.md"}
    assert not (out / "checkpoints").exists() and not (out / "training_curve.png").exists()
    answers = pipeline("image-classification", model=str(out))(str(folders / "test" / "white" / "0.png"))
    assert answers[0]["label"] == "white"


def test_lora_trains_adapters_and_merges_them(folders, init, tmp_path):
    out, keep = tmp_path / "run", ["--keep-adapter", "--epochs", 2, "--learning-rate", 0.01]
    finetune("--data", folders, "--init", init / "vit", "--speed", "lora", "--out", out, *keep)
    trained, start = load_file(out / "model.safetensors"), load_file(init / "vit" / "model.safetensors")
    assert set(trained) == set(start)
    changed = {
        name for name in trained if trained[name].shape != start[name].shape or not trained[name].equal(start[name])
    }
    assert changed and all("query" in name or "value" in name or "classifier" in name for name in changed)

    base = HfViTForImageClassification.from_pretrained(init / "vit", num_labels=3, ignore_mismatched_sizes=True)
    adapted = PeftModel.from_pretrained(base, out / "adapter").eval()
    merged = AutoModelForImageClassification.from_pretrained(out).eval()
    pixels = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(adapted(pixels).logits, merged(pixels).logits, rtol=1e-4, atol=1e-4)


def test_the_learned_part_needs_weights_to_start_from(folders):
    for speed in ("lora", "probe"):
        assert f"the speed '{speed}' starts from trained weights" in finetune(
            "--data", folders, "--speed", speed, code=2
        )


def test_each_split_has_its_part(folders, tmp_path):
    out = tmp_path / "run"
    said = finetune("--data", folders, "--family", "vit", "--epochs", 2, "--keep", "best", "--out", out)
    record = record_of(out)
    assert record["images"]["images"] == {"train": 30, "validation": 9, "test": 12}
    assert "validation loss" in said


def test_a_recipe_that_selects_does_not_look_at_the_test_images(folders, tmp_path):
    said = finetune(
        "--data", folders / "train", "--family", "vit", "--epochs", 2, "--patience", 1, "--out", tmp_path / "run"
    )
    images = record_of(tmp_path / "run")["images"]["images"]
    assert images["validation"] > 0 and sum(images.values()) == 30
    assert "validation loss" in said


def test_numbers_come_from_a_file_and_options_win(folders, tmp_path):
    (tmp_path / "recipe.yaml").write_text("epochs: 3\nlearning_rate: 5.0e-4\nmixup: 0.2\nbatch_size: 10\n")
    common = ["--data", folders, "--family", "vit", "--epochs", 1, "--cutmix", 1.0]
    finetune(*common, "--recipe", tmp_path / "recipe.yaml", "--out", tmp_path / "run")
    recipe = record_of(tmp_path / "run")["recipe"]
    numbers = ("epochs", "learning_rate", "mixup", "cutmix", "batch_size")
    assert [recipe[name] for name in numbers] == [1, 5e-4, 0.2, 1.0, 10]
    finetune(
        "--data", folders, "--family", "vit", "--recipe", tmp_path / "run" / "metrics.json", "--out", tmp_path / "again"
    )
    assert record_of(tmp_path / "again")["recipe"] == recipe
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_image_size_resizes_the_weights_it_starts_from(folders, init, tmp_path):
    arguments = ["--data", folders, "--init", init / "vit", "--epochs", 1, "--image-size", 40]
    finetune(*arguments, "--out", tmp_path / "run")
    config = AutoModelForImageClassification.from_pretrained(tmp_path / "run").config
    assert config.image_size == 40
    processor = json.loads((tmp_path / "run" / "preprocessor_config.json").read_text())
    assert processor["size"] == {"height": 40, "width": 40}


@pytest.mark.parametrize("speed", ["full", "lora", "probe"])
def test_several_labels_from_a_csv_file(speed, init, tmp_path):
    rows = [("path", "labels")]
    for copy in range(36):
        bright, upper = copy % 2, copy // 2 % 2
        pixels = np.asarray(picture(200 if bright else 60, copy)).copy()
        pixels[:14] = 128 if upper else pixels[:14]
        Image.fromarray(pixels).save(tmp_path / f"{copy}.png")
        rows.append((f"{copy}.png", "|".join(["bright"] * bright + ["bar"] * upper)))
    with open(tmp_path / "images.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    training = [] if speed == "probe" else ["--epochs", 1]
    out = tmp_path / "run"
    finetune("--data", tmp_path / "images.csv", "--init", init / "vit", "--speed", speed, "--out", out, *training)
    record = record_of(out)
    assert record["multi_label"] and set(record["labels"]) == {"bright", "bar"}
    assert set(record["scores"]) == {"macro_f1", "micro_f1", "mean_average_precision", "exact_match", "loss"}
    model = AutoModelForImageClassification.from_pretrained(out)
    assert model.config.problem_type == "multi_label_classification"
    scores = pipeline("image-classification", model=str(out))(str(tmp_path / "3.png"))
    if speed == "probe":
        assert {score["label"] for score in scores if score["score"] > 0.5} == {"bright", "bar"}


def test_a_run_is_scored_again_with_its_own_numbers(folders, tmp_path):
    """`hf-swin evaluate` repeats what the run noted."""
    out, scores = tmp_path / "run", tmp_path / "scores.json"
    finetune("--data", folders, "--family", "swin", "--epochs", 1, "--out", out)
    result = CliRunner().invoke(
        app, ["evaluate", str(out), "--data", str(folders), "--out", str(scores), "--workers", "0"]
    )
    assert result.exit_code == 0, result.output
    again = json.loads(scores.read_text())["scores"]
    noted = record_of(out)["scores"]
    assert {name: pytest.approx(value, abs=1e-5) for name, value in noted.items() if name in again} == {
        name: value for name, value in again.items() if name in noted
    }
    assert "accuracy" in again
    result = CliRunner().invoke(app, ["predict", str(out), str(folders / "test"), "--workers", "0"])
    assert result.exit_code == 0 and "0.png" in result.output
