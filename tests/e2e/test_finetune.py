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
"""Fine-tuning from a folder of pictures to a model that others can load, and all that can go wrong on the way."""

import json
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    pipeline,
    set_seed,
)
from typer.testing import CliRunner

from hf_swin import HfViTConfig, HfViTForImageClassification, saving
from hf_swin import finetune as module
from hf_swin.cli import app
from hf_swin.finetune import finetune
from hf_swin.starting import build_model, new_processor


SAVED = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "metrics.json", "report.html"}
PICTURES = {"training_curve.png", "confusion_matrix.png", "calibration.png", "predictions.png"}
CLASSES = ("blue", "green", "red")


def make_folder(path, copies=8, size=28):
    """Noise in three colours, in every mode that PNG files come in."""
    generator = np.random.default_rng(0)
    for channel, name in enumerate(reversed(CLASSES)):
        (path / name).mkdir(parents=True)
        for copy in range(copies):
            pixels = generator.integers(0, 60, (size, size, 3), dtype=np.uint8)
            pixels[..., channel] += 180
            Image.fromarray(pixels).convert(("RGB", "RGBA", "P")[copy % 3]).save(path / name / f"{copy}.png")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("colours"))


def command(*arguments):
    result = CliRunner().invoke(app, ["finetune", *map(str, arguments)])
    return result.exit_code, result.stderr.strip()


def assert_refused(result, words):
    """One sentence, exit code 2, no traceback."""
    code, text = result
    assert code == 2, text
    assert words in text
    assert len(text.splitlines()) == 1 and "Traceback" not in text


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


class Unplugged(BaseException):
    """The process ends here."""


def unplug_after(epochs, monkeypatch):
    def on_save(self, args, state, control, **kwargs):
        if state.epoch >= epochs:
            raise Unplugged

    monkeypatch.setattr(module.EpochTable, "on_save", on_save)


@pytest.mark.parametrize("family", ["swin", "swin_v2", "vit"])
def test_one_epoch_leaves_a_model_that_loads_everywhere(family, folder, tmp_path, capfd):
    trainer = finetune(folder, family, out=tmp_path / "run", epochs=1)
    found = set(contents(tmp_path / "run"))
    assert {name for name in found if not name.endswith(".py")} == SAVED | PICTURES
    assert f"modeling_{family}.py" in found
    assert not [path for path in (tmp_path / "run").iterdir() if path.is_dir()]

    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert model.config.model_type == f"hf_{family}"
    assert model.config.id2label == dict(enumerate(CLASSES))
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    processor = AutoImageProcessor.from_pretrained(tmp_path / "run")
    assert dict(processor.size) == {"height": 28, "width": 28}
    answers = pipeline("image-classification", model=str(tmp_path / "run"))(str(folder / "red" / "0.png"))
    assert {answer["label"] for answer in answers} == set(CLASSES)

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["images"]["images"] == {"train": 19, "validation": 0, "test": 5}
    assert (metrics["labels"], metrics["speed"], metrics["timing"]["steps"]) == (list(CLASSES), "full", 1)
    assert set(metrics["scores"]) == {"accuracy", "macro_f1", "balanced_accuracy", "expected_calibration_error", "loss"}
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-classification")
    assert card.data.eval_results[0].metric_value == metrics["scores"]["accuracy"]
    assert "import hf_swin" in card.text

    screen = capfd.readouterr()
    assert "epoch   train loss" in screen.err + screen.out
    assert str(tmp_path / "run" / "predictions.png") in screen.out
    for name in PICTURES:
        with Image.open(tmp_path / "run" / name) as image:
            assert min(image.size) > 250


def test_a_run_interrupted_and_started_again_ends_like_an_unbroken_one(folder, tmp_path, monkeypatch, capsys):
    finetune(folder, out=tmp_path / "whole", epochs=3)
    with monkeypatch.context() as patch, pytest.raises(Unplugged):
        unplug_after(2, patch)
        finetune(folder, out=tmp_path / "broken", epochs=3)
    assert not (tmp_path / "broken" / "config.json").exists()
    half = tmp_path / "broken" / "checkpoints" / "checkpoint-999"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    trainer = finetune(folder, out=tmp_path / "broken", epochs=3)
    assert "checkpoint-2" in capsys.readouterr().out
    assert not half.exists()
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert [entry["epoch"] for entry in trainer.state.log_history if "eval_loss" in entry] == [1, 2, 3]


def test_an_unfinished_run_with_other_settings_is_not_mixed_up(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Unplugged):
        unplug_after(1, patch)
        finetune(folder, out=tmp_path / "run", epochs=2)
    command_line = ["--data", folder, "--out", tmp_path / "run", "--epochs", 1]
    assert_refused(command(*command_line), "unfinished run with epochs=2, not 1: add --resume")
    assert command(*command_line, "--no-resume")[0] == 0
    assert_refused(command(*command_line, "--resume"), "has no checkpoint to resume")


def test_a_full_disk_while_saving_leaves_the_finished_model_alone(folder, tmp_path, monkeypatch):
    finetune(folder, out=tmp_path / "run", epochs=1)
    before = contents(tmp_path / "run")

    def card(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "model_card", card)
    refused = command("--data", folder, "--out", tmp_path / "run", "--epochs", 1, "--seed", 5)
    assert_refused(refused, "cannot be written (the disk is full)")
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "run" / ".saving").exists()


def test_a_move_cut_short_is_completed_by_the_next_run(folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    (out / ".finished").mkdir(parents=True)
    (out / ".finished" / "config.json").write_text("new")
    (out / "config.json").write_text("old")
    with monkeypatch.context() as patch, pytest.raises(Unplugged):
        unplug_after(1, patch)
        finetune(folder, out=out, epochs=1)
    assert (out / "config.json").read_text() == "new"
    assert not (out / ".finished").exists()


LIMITED = """
import resource, sys
limit = int(sys.argv.pop())
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from hf_swin.cli import app
app()
"""


@pytest.mark.parametrize("part", [0.5, 1.5], ids=["weights", "optimizer"])
def test_a_disk_that_takes_no_more_stops_with_one_sentence(part, folder, tmp_path):
    """A file that outgrows the limit fails to be written, as on a full disk, deep inside the Trainer."""
    limit = int(part * 4 * HfViTForImageClassification(HfViTConfig.for_image_size(28, num_labels=3)).num_parameters())
    arguments = ["finetune", "--data", str(folder), "--out", str(tmp_path / "run"), "--family", "vit", str(limit)]
    result = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True)
    assert_refused((result.returncode, result.stderr.strip()), "cannot be written (the disk is full)")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "message",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 404416 vs 404308",
        "basic_ios::clear: iostream error",
    ],
)
def test_a_full_disk_is_known_by_what_libraries_say_of_it(message, tmp_path):
    with pytest.raises(module.UserError, match="the disk is full"), module.disk_errors(tmp_path):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="something else"), module.disk_errors(tmp_path):
        raise RuntimeError("something else")


def test_user_errors_in_the_data_exit_with_2(tmp_path):
    one = tmp_path / "one"
    make_folder(one / "class")
    bad = make_folder(tmp_path / "bad")
    (bad / "red" / "notes.png").write_text("no image")
    thin = make_folder(tmp_path / "thin")
    Image.new("RGB", (1, 30)).save(thin / "red" / "thin.png")
    assert_refused(command("--data", tmp_path / "nowhere"), "nowhere is not a folder")
    assert_refused(command("--data", one), "only the sub-folder 'class'")
    assert_refused(command("--data", bad, "--out", tmp_path / "out"), "notes.png is not a readable image")
    assert_refused(command("--data", thin, "--out", tmp_path / "out"), "1x30 pixels, smaller than a patch")
    assert not (tmp_path / "out").exists()


def test_user_errors_in_the_options_exit_with_2(folder, tmp_path):
    datasets.Dataset.from_dict({"picture": [0, 1], "label": [0, 1]}).save_to_disk(tmp_path / "set")
    (tmp_path / "file").write_text("")
    assert_refused(command("--data", tmp_path / "set"), "no column 'image' but picture, label")
    assert_refused(command("--data", folder, "--out", tmp_path / "file"), "file cannot be written")
    assert_refused(command("--data", folder, "--init", tmp_path / "nothing"), "holds no model")
    assert_refused(command("--data", folder, "--image-size", 500), "--image-size")
    assert command("--data", folder, "--family", "resnet")[0] == 2
    assert command("--data", folder, "--epochs", 0)[0] == 2


def test_bad_files_are_skipped_and_counted_if_asked(tmp_path, capsys):
    bad = make_folder(tmp_path / "bad")
    (bad / "red" / "notes.png").write_text("no image")
    finetune(bad, out=tmp_path / "run", epochs=1, skip_bad=True)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["images"]["skipped"] == [str(bad / "red" / "notes.png")]
    assert "left out 1 file(s)" in capsys.readouterr().out


def test_wrong_names_in_code_raise_one_sentence(folder):
    with pytest.raises(module.UserError, match="no 'rate': it has epochs"):
        finetune(folder, rate=3)
    with pytest.raises(module.UserError, match="no speed 'fast': choose one of full, lora, probe"):
        finetune(folder, speed="fast")
    with pytest.raises(module.UserError, match="no 'mean_average_precision': choose one of accuracy"):
        finetune(folder, metric="mean_average_precision")
    with pytest.raises(module.UserError, match="no family 'resnet'"):
        finetune(folder, family="resnet")
    with pytest.raises(module.UserError, match="no augmentation 'wild'"):
        finetune(folder, augmentation="wild")


def test_init_from_our_weights_keeps_trunk_and_processor_and_changes_the_head(folder, tmp_path):
    finetune(folder, "vit", out=tmp_path / "first", epochs=1)
    images = module.load_images(folder)
    images.labels.append("new")
    recipe = module.recipe_for("vit", 10, pretrained=True)
    model, processor = build_model("vit", images, recipe, tmp_path / "first")
    saved = load_file(tmp_path / "first" / "model.safetensors")
    assert torch.equal(model.vit.embeddings.cls_token, saved["vit.embeddings.cls_token"])
    assert model.classifier.out_features == 4
    assert processor.to_dict() == AutoImageProcessor.from_pretrained(tmp_path / "first").to_dict()


def test_init_from_a_stock_folder_trains_our_class_of_the_same_family(folder, tmp_path):
    sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    SwinForImageClassification(SwinConfig(**sizes)).save_pretrained(tmp_path / "stock")
    finetune(folder, "vit", init=tmp_path / "stock", out=tmp_path / "run", epochs=1)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert model.config.model_type == "hf_swin"
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "run").image_mean) == [0.485, 0.456, 0.406]


def test_other_models_are_refused_as_init(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(module.UserError, match="is a 'resnet' model"):
        finetune("digits", init=tmp_path)


def test_a_saved_dataset_trains_from_the_command_line(tmp_path):
    rows = {"picture": [Image.new("L", (30, 30), 10 * index) for index in range(20)], "kind": [0, 1] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    columns = ["--image-column", "picture", "--label-column", "kind"]
    code, text = command("--data", tmp_path / "set", *columns, "--out", tmp_path / "run", "--epochs", 1)
    assert code == 0, text
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_the_plain_trainer_takes_the_same_pieces(folder, tmp_path):
    """What the package adds to the Trainer is optional: transforms and metrics work with the stock one."""
    images = module.load_images(folder)
    set_seed(0)
    model = HfViTForImageClassification(HfViTConfig.for_image_size(28, num_labels=3))
    processor = new_processor(28)
    recipe = module.recipe_for("vit", 10, pretrained=False, epochs=1)
    trainer = module.make_trainer(model, processor, images, recipe, tmp_path)
    assert {group["weight_decay"] for group in trainer.create_optimizer().param_groups} == {0.0, recipe.weight_decay}


def test_help_names_the_command_and_imports_nothing_it_does_not_need():
    heavy = "{'datasets', 'sklearn', 'matplotlib', 'torchvision', 'hf_swin.finetune', 'transformers.trainer'}"
    code = f"import sys, hf_swin.cli; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0 and "finetune" in result.output


@pytest.mark.slow
def test_a_killed_process_goes_on_from_its_checkpoint(folder, tmp_path):
    out = tmp_path / "run"
    options = ["--data", str(folder), "--out", str(out), "--epochs", "40"]
    arguments = [sys.executable, "-m", "hf_swin.cli", "finetune", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run(arguments, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    assert set(contents(out)) >= SAVED | PICTURES
