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
"""Two processes do what one does: the same losses, weights and scores, by DDP and by FSDP, resumed or not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hf_swin import finetune as module
from hf_swin.errors import UserError
from hf_swin.finetune import finetune


ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(__file__).with_name("launched.py"))
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
DDP = ["--multi_gpu"]
FSDP = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
BOTH = pytest.mark.parametrize("engine", [DDP, FSDP], ids=["ddp", "fsdp"])
EVERY_STEP = {"logging_strategy": "steps", "logging_steps": 1}
HERE = {"dataloader_num_workers": 0, "dataloader_persistent_workers": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise with a tint: 36 images to train on, 9 to test, which two processes cannot share evenly."""
    path, generator = tmp_path_factory.mktemp("tints"), np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (path / name).mkdir()
        for copy in range(15):
            pixels = generator.integers(0, 160, (28, 28, 3), dtype=np.uint8)
            pixels[..., channel] += 30
            Image.fromarray(pixels).save(path / name / f"{copy}.png")
    return path


def settings(folder, out, **more):
    arguments = {**EVERY_STEP, **HERE, **more.pop("arguments", {})}
    return {"data": str(folder), "family": "vit", "out": str(out), "epochs": 2, "batch_size": 8} | {
        "arguments": arguments,
        **more,
    }


def start(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def run(*command):
    result = start(*command)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def alone(**options):
    return run(sys.executable, SCRIPT, json.dumps(options))


def together(engine, **options):
    return run(*LAUNCH, *engine, SCRIPT, json.dumps(options))


def curves(out):
    history = json.loads((out / "metrics.json").read_text())["history"]
    return {key: [entry[key] for entry in history if key in entry] for key in ("loss", "grad_norm", "eval_loss")}


def assert_same_curves(one, other, within=1e-4):
    found, wanted = curves(other), curves(one)
    for key in wanted:
        assert wanted[key] and found[key] == pytest.approx(wanted[key], rel=within), key


def assert_same_weights(one, other, within=1e-4):
    """Each tensor within a part of its size; but not biases of keys.

    They add the same to all scores of a query, which the softmax does not see, so their gradient is zero but for
    rounding, and Adam makes steps of full length out of that.
    """
    wanted, found = (load_file(out / "model.safetensors") for out in (one, other))
    assert wanted.keys() == found.keys()
    for name in wanted:
        if not name.endswith("key.bias"):
            assert torch.dist(wanted[name], found[name]) <= within * wanted[name].norm(), name


def assert_same_scores(one, other):
    wanted, found = (json.loads((out / "metrics.json").read_text()) for out in (one, other))
    assert found["scores"] == pytest.approx(wanted["scores"], rel=1e-4)
    assert found["parameters"] == wanted["parameters"]


def test_an_update_in_two_parts_is_the_same_update(folder, tmp_path):
    whole = finetune(**settings(folder, tmp_path / "whole", epochs=1))
    parts = finetune(**settings(folder, tmp_path / "parts", epochs=1, accumulation=2))
    assert (whole.args.train_batch_size, parts.args.train_batch_size) == (8, 4)
    assert whole.state.global_step == parts.state.global_step == 4
    assert_same_curves(tmp_path / "whole", tmp_path / "parts")
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_bfloat16_learns_about_the_same(folder, tmp_path):
    trainer = finetune(**settings(folder, tmp_path / "run", epochs=1, arguments={"bf16": True}))
    assert trainer.accelerator.mixed_precision == "bf16"
    assert next(trainer.model.parameters()).dtype == torch.float32
    exact = finetune(**settings(folder, tmp_path / "exact", epochs=1))
    rough = curves(tmp_path / "run")["loss"]
    assert rough == pytest.approx(curves(tmp_path / "exact")["loss"], rel=0.02)
    assert rough != curves(tmp_path / "exact")["loss"]
    assert exact.state.global_step == trainer.state.global_step


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_learns_the_same(backend, folder, tmp_path):
    compiled = {"torch_compile": True, "torch_compile_backend": backend}
    finetune(**settings(folder, tmp_path / "compiled", epochs=1, arguments=compiled))
    finetune(**settings(folder, tmp_path / "plain", epochs=1))
    assert_same_curves(tmp_path / "plain", tmp_path / "compiled")
    assert_same_weights(tmp_path / "plain", tmp_path / "compiled")


def test_a_deepspeed_configuration_reaches_the_engine(folder, tmp_path, monkeypatch):
    engine = {"deepspeed": str(tmp_path / "zero.json")}
    monkeypatch.setattr(module, "TrainingArguments", lambda **given: pytest.fail(given["deepspeed"]))
    with pytest.raises(pytest.fail.Exception, match=r"zero\.json"):
        finetune(**settings(folder, tmp_path / "run", arguments=engine))


def test_engines_that_are_not_there_are_refused_in_one_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 2}}')
    engine = {"deepspeed": str(tmp_path / "zero.json")}
    with pytest.raises(UserError, match=r"a package is missing \(deepspeed\): pip install it"):
        finetune(**settings(folder, tmp_path / "run", arguments=engine))
    with pytest.raises(UserError, match=r"do not take these arguments: .*no_such_thing"):
        finetune(**settings(folder, tmp_path / "run", arguments={"no_such_thing": 1}))


@pytest.fixture(scope="module")
def one(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    assert "ended as one of 1" in alone(**settings(folder, out))
    return out


@pytest.mark.slow
@BOTH
def test_two_processes_equal_one(engine, one, folder, tmp_path):
    text = together(engine, **settings(folder, tmp_path / "run"))
    assert "ended as one of 2" in text
    assert ("FSDPPreNormBlock" in text) == (engine is FSDP)
    assert text.count("fine-tuning vit") == text.count("Loaded back") == 1
    assert len(curves(one)["loss"]) == 8
    assert_same_curves(one, tmp_path / "run")
    assert_same_weights(one, tmp_path / "run")
    assert_same_scores(one, tmp_path / "run")


@pytest.mark.slow
def test_the_command_itself_is_launched_unchanged(one, folder, tmp_path):
    options = ["--data", folder, "--family", "vit", "--epochs", 2, "--batch-size", 8, "--out", tmp_path / "run"]
    text = run(*LAUNCH, *DDP, "-m", "hf_swin.cli", "finetune", *map(str, options))
    assert text.count("Test images: ") == 1
    assert_same_weights(one, tmp_path / "run")
    assert_same_scores(one, tmp_path / "run")


@pytest.mark.slow
def test_all_that_a_recipe_adds_is_the_same_in_two_processes(folder, tmp_path):
    recipe = {"ema": 0.9, "keep": "best", "metric": "loss", "accumulation": 2, "random_erasing": 0.3, "freeze": 1}
    recipe |= {"balance": "loss", "layer_decay": 0.8, "augmentation": "randaugment", "family": "swin"}
    alone(**settings(folder, tmp_path / "one", **recipe))
    together(DDP, **settings(folder, tmp_path / "two", **recipe))
    assert_same_curves(tmp_path / "one", tmp_path / "two")
    assert_same_weights(tmp_path / "one", tmp_path / "two")
    assert_same_scores(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_adapters_are_the_same_in_two_processes(one, folder, tmp_path):
    lora = {"init": str(one), "speed": "lora", "drop_path": 0}
    alone(**settings(folder, tmp_path / "one", **lora))
    together(DDP, **settings(folder, tmp_path / "two", **lora))
    assert_same_curves(tmp_path / "one", tmp_path / "two")
    assert_same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@BOTH
def test_two_processes_resumed_equal_two_unbroken(engine, folder, tmp_path):
    """With random drops, which each process takes from a state of its own."""
    recipe = {"epochs": 3, "drop_path": 0.1, "keep": "best", "metric": "loss"}
    together(engine, **settings(folder, tmp_path / "whole", **recipe))
    broken = settings(folder, tmp_path / "broken", **recipe)
    assert start(*LAUNCH, *engine, SCRIPT, json.dumps({**broken, "cut_off": 2})).returncode
    assert not (tmp_path / "broken" / "config.json").exists()
    assert "going on from" in together(engine, **broken)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "wrong", "words"),
    [
        (FSDP, {"ema": 0.9}, "ema 0.9 needs whole weights"),
        (DDP, {"data": "/nowhere"}, "/nowhere is not a folder"),
        (DDP, {"resume": True}, "has no checkpoint to resume"),
        (DDP, {"learning_rate": 1e38, "warmup": 0, "clip": 0}, "the loss is nan at step"),
    ],
    ids=["ema", "data", "resume", "nan"],
)
def test_two_processes_complain_once(engine, wrong, words, folder, tmp_path):
    options = {**settings(folder, tmp_path / "run"), **wrong}
    result = start(*LAUNCH, *engine, SCRIPT, json.dumps(options))
    complaints = [line for line in result.stderr.splitlines() if line.startswith("hf-swin: ")]
    assert result.returncode
    assert len(complaints) == 1 and words in complaints[0]
    assert "hf_swin/finetune.py" not in result.stderr  # no traceback of ours
