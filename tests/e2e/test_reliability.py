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
"""Runs that are killed, run out of disk or of images, and what the same command makes of it when it starts again.

Each run is a process of its own, forked from a server that has imported everything, and dies by a real SIGKILL.
"""

import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hf_swin import saving
from hf_swin.cli import app
from hf_swin.errors import UserError
from hf_swin.rundir import complete_checkpoints, disk_errors, finish_move, note_files, remove_checkpoints


# What differs between equal runs.
TIMES = ("runtime", "per_second", "seconds")
KILLED = -signal.SIGKILL
# Two updates an epoch. The rich run ends after its third epoch, and its best is the second.
PLAIN = {"family": "vit", "batch_size": 8, "epochs": 2, "drop_path": 0.3}
RICH = {**PLAIN, "epochs": 4, "keep": "best", "patience": 1, "metric": "loss", "ema": 0.9, "mixup": 0.5}
RICH |= {"augmentation": "randaugment", "random_erasing": 0.5}
TRAINER = "hf_swin.trainer:ImageTrainer"
# Each is where one process ends; the next one goes on from what it finds.
ENDS = {
    "loading": ("kill_at", "hf_swin.finetune:load_images"),
    "in the first epoch": ("kill_at", f"{TRAINER}.training_step", 2),
    "in the second epoch": ("kill_at", f"{TRAINER}.training_step", 4),
    "evaluating": ("kill_at", f"{TRAINER}.evaluation_loop"),
    "model written, optimizer not": ("kill_at", f"{TRAINER}._save_optimizer_and_scheduler"),
    "optimizer written, random numbers not": ("kill_at", f"{TRAINER}._save_rng_state"),
    "files not noted": ("kill_at", "hf_swin.trainer:note_files"),
    "state half written": ("kill_at", "transformers.trainer:TrainerState.save_to_json", 1, True, "half_written"),
    "all written": ("kill_at", "transformers.trainer:rotate_checkpoints"),
    "trained": ("kill_at", f"{TRAINER}._finalize_training"),
    "deleting the last checkpoint": ("kill_at", "os:unlink", 3),
    "model saved, card not": ("kill_at", "hf_swin.saving:model_card"),
    "all saved, nothing moved": ("kill_at", "hf_swin.rundir:finish_move", 2),
    "half moved": ("kill_at", "pathlib:Path.replace", 5),
    "moved": ("kill_at", "hf_swin.saving:remove_checkpoints"),
}


@pytest.fixture(scope="module")
def server():
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise, a little more of it in one colour."""
    path, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (path / name).mkdir()
        for copy in range(8):
            pixels = generator.integers(0, 200, (28, 28, 3), dtype=np.uint8)
            pixels[..., channel] += 25
            Image.fromarray(pixels).save(path / name / f"{copy}.png")
    return path


def kill(*_):
    print("workers", *[child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def terminate(*_):
    print("workers", *[child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def half_written(state, path):
    """The Trainer's last file of a checkpoint breaks off in the middle."""
    Path(path).write_text(Path(path).read_text()[:100])
    kill()


def fill_disk(*_):
    """From now on no file takes more than this."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def poison(trainer, *_):
    """A weight is no number any more."""
    with torch.no_grad():
        trainer.model.classifier.bias[0] = float("nan")


def remove_image(trainer, *_):
    Path(trainer.train_dataset.split["name"][0]).unlink()


def kill_at(target, count=1, after=False, act="kill"):
    """Act before, or after, the call of a function ("module:name" or "module:class.name") that is the count-th one."""
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), [0]

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == count and not after:
            globals()[act](*args)
        result = original(*args, **kwargs)
        if calls[0] == count and after:
            globals()[act](*args)
        return result

    setattr(owner, name, counted)


def kill_at_file(number):
    """Be killed at the number-th time that Python opens, moves or removes a file of the run."""
    seen = [0]

    def hook(event, args):
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        inside = event in ("os.remove", "os.rmdir") and args[-1] != -1  # rmtree names files within their folder
        if inside or (isinstance(args[0], str | os.PathLike) and "run" in Path(args[0]).parts):
            seen[0] += 1
            if seen[0] == number:
                kill()

    sys.addaudithook(hook)


def serve():
    """Fork a process for each line of JSON, and answer with its exit code."""
    for name in ("hf_swin.finetune", "matplotlib.pyplot", "scipy.optimize", "sklearn.metrics", "peft"):
        importlib.import_module(name)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            work(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def work(log, home, moments, arguments, report):
    """Run the command, with what it says in a file, and moments (names of functions here, and arguments) to act at."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(home)
    if not report:  # which takes most of the time of so short a run
        saving.write_report = lambda *_: None
    for act, *values in moments:
        globals()[act](*values)
    app(["finetune", *arguments])


@pytest.fixture(scope="module")
def start_in(server, folder):
    """Run the command in a process, with moments to act at; return its exit code and what it said."""

    def run(home, *moments, report=False, **options):
        options = {"data": str(folder), "out": "run", "workers": 0, **options}
        given = [(f"--{name.replace('_', '-')}", value) for name, value in options.items()]
        arguments = [name if value is True else f"{name}={value}" for name, value in given]
        order = {"log": str(home / "log"), "home": str(home), "moments": moments, "arguments": arguments}
        print(json.dumps({**order, "report": report}), file=server.stdin, flush=True)
        return int(server.stdout.readline()), (home / "log").read_text()

    return run


@pytest.fixture
def start(start_in, tmp_path):
    return partial(start_in, tmp_path)


@pytest.fixture(scope="module")
def whole(start_in, tmp_path_factory):
    """What an unbroken plain run comes to."""
    home = tmp_path_factory.mktemp("whole")
    assert start_in(home, **PLAIN)[0] == 0
    return result(home / "run")


def result(out):
    """What a run comes to: the weights, the scores, and the numbers of each epoch."""
    record = json.loads((out / "metrics.json").read_text())
    history = [{key: value for key, value in entry.items() if not key.endswith(TIMES)} for entry in record["history"]]
    epochs = [entry for entry in history if "train_loss" not in entry]  # which is of what this process trained
    return load_file(out / "model.safetensors"), record["scores"], epochs


def assert_same(first, second):
    assert first[0].keys() == second[0].keys()
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    assert first[1:] == second[1:]


def kill_and_compare(start, home, ends, options):
    """Kill a run at each of some ends, start it a last time, and compare with an unbroken one."""
    assert start(**options, out="whole")[0] == 0
    for name in ends:
        code, said = start(ENDS[name], **options)
        assert code == KILLED, (name, said)
        assert name in ("half moved", "moved") or not (home / "run" / "config.json").exists(), name
    code, said = start(**options)
    assert code == 0 and "going on from" in said, said
    assert_same(result(home / "whole"), result(home / "run"))
    assert {path.name for path in (home / "run").iterdir() if path.is_dir()} <= {"adapter"}


def test_killed_again_and_again_it_ends_like_an_unbroken_run(start, tmp_path):
    kill_and_compare(start, tmp_path, ("state half written", "trained", "deleting the last checkpoint"), RICH)
    epochs = [entry["epoch"] for entry in result(tmp_path / "run")[2] if "eval_loss" in entry]
    assert epochs == [1, 2, 3], "patience must have ended the run, and not begun anew"


@pytest.mark.slow
@pytest.mark.parametrize("speed", ["full", "lora"])
def test_killed_at_every_stage_it_ends_like_an_unbroken_run(speed, start, tmp_path):
    options = {**RICH, "workers": 1}
    if speed == "lora":
        assert start(**PLAIN, out="first")[0] == 0
        options |= {"speed": "lora", "init": "first", "keep_adapter": True, "ema": 0}
    # An adapter gets better to the end: its last checkpoint is its best, and is not deleted by itself.
    ends = [name for name in ENDS if speed == "full" or name != "deleting the last checkpoint"]
    kill_and_compare(start, tmp_path, ends, options)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_killed_at_any_file_it_ends_like_an_unbroken_run(part, start, tmp_path, whole):
    for number in range(1 + 3 * part, 1000, 24):
        code = start(("kill_at_file", number), **PLAIN)[0]
        if code == 0:
            break
        assert code == KILLED
        assert start(**PLAIN)[0] == 0
        assert_same(whole, result(tmp_path / "run"))
        shutil.rmtree(tmp_path / "run")
    assert number > 24


def test_seeds_decide_and_workers_do_not(start, tmp_path, whole):
    assert start(**PLAIN | {"workers": 2}, out="again")[0] == 0
    assert start(**PLAIN, out="other", seed=1)[0] == 0
    assert_same(whole, result(tmp_path / "again"))
    assert not torch.equal(whole[0]["classifier.weight"], result(tmp_path / "other")[0]["classifier.weight"])


def test_after_making_room_the_same_command_goes_on(start, tmp_path, whole):
    full = ("kill_at", f"{TRAINER}._save_optimizer_and_scheduler", 2, False, "fill_disk")
    assert_one_sentence(*start(full, **PLAIN), "run cannot be written (the disk is full)")
    code, said = start(**PLAIN)
    assert code == 0 and "checkpoint-2" in said
    assert_same(whole, result(tmp_path / "run"))


def assert_one_sentence(code, said, words):
    *_, last = said.splitlines()
    assert code == 2 and "Traceback" not in said, said
    assert last.startswith("hf-swin: ") and words in last


@pytest.mark.parametrize("act", ["kill", pytest.param("terminate", marks=pytest.mark.slow)])
def test_workers_do_not_outlive_their_run(act, start):
    code, said = start(("kill_at", f"{TRAINER}.training_step", 2, False, act), **PLAIN | {"workers": 1})
    assert code == -{"kill": signal.SIGKILL, "terminate": signal.SIGTERM}[act]
    *_, last = said.splitlines()
    workers = [Path("/proc", pid, "stat") for pid in last.removeprefix("workers ").split()]
    assert workers
    deadline = time.monotonic() + 30
    while any(map(runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(status):
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"  # Z waits for somebody to take note of its end
    except OSError:
        return False


def test_a_loss_that_is_no_number_stops_and_a_lower_rate_goes_on(start, tmp_path):
    poisoned = ("kill_at", f"{TRAINER}.training_step", 4, False, "poison")
    # 0.002 after one step of warm-up and two of three steps down the cosine
    assert_one_sentence(*start(poisoned, **PLAIN), "the loss is nan at step 4, learning rate 0.0005, on ")
    named = (tmp_path / "run" / "checkpoints" / "failed_batch.txt").read_text().splitlines()
    assert len(named) == 8 and all(Path(name).is_file() for name in named)
    assert_one_sentence(*start(**PLAIN, learning_rate=1e-4), "add --resume to go on with it")
    code, said = start(**PLAIN, learning_rate=1e-4, resume=True)
    assert code == 0 and "checkpoint-2" in said
    rates = [entry["learning_rate"] for entry in result(tmp_path / "run")[2] if "learning_rate" in entry]
    assert rates == pytest.approx([2e-3, 1e-4 * 0.25])


def test_weights_that_are_no_numbers_do_not_get_into_a_checkpoint(start, tmp_path, whole):
    """The last update of an epoch broke them, with no further loss to show it."""
    poisoned = ("kill_at", f"{TRAINER}.evaluation_loop", 2, False, "poison")
    assert_one_sentence(*start(poisoned, **PLAIN), "the evaluation loss is nan after step 4, learning rate ")
    assert start(**PLAIN)[0] == 0
    assert_same(whole, result(tmp_path / "run"))


@pytest.mark.parametrize("workers", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_an_image_that_disappears_is_named(workers, start, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    gone = ("kill_at", f"{TRAINER}.train", 1, False, "remove_image")
    options = {**PLAIN, "data": "images", "workers": workers}
    assert_one_sentence(*start(gone, **options), ".png was readable when the run began and is not any more")


def test_bad_files_are_named_once_and_counted_in_the_report(start, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images" / "red" / "notes.png").write_text("no image")
    whole = (tmp_path / "images" / "blue" / "0.png").read_bytes()
    (tmp_path / "images" / "blue" / "half.png").write_bytes(whole[: len(whole) // 2])
    code, said = start(**PLAIN | {"epochs": 1}, data="images", skip_bad=True, report=True)
    assert code == 0, said
    assert said.count("notes.png") == said.count("half.png") == 1
    page = (tmp_path / "run" / "report.html").read_text()
    bad = ["images/blue/half.png", "images/red/notes.png"]
    assert f"2: {', '.join(bad)}" in page
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["images"]["skipped"] == bad


@pytest.mark.parametrize(
    "message",
    [
        "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
        "shared memory. Please try to raise your shared memory limit.",
    ],
)
def test_too_little_shared_memory_is_known_by_what_torch_says_of_it(message, tmp_path):
    with pytest.raises(UserError, match="shared memory for the workers: add --workers 0"), disk_errors(tmp_path):
        raise RuntimeError(message)


def checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    (path / "part").mkdir(parents=True)
    (path / "part" / "optimizer").write_bytes(b"1234")
    (path / "weights").write_bytes(b"12345678")
    note_files(path)
    (path / "trainer_state.json").write_text("{}")
    return path


@pytest.mark.parametrize("name", ["trainer_state.json", "files.json", "weights", "part/optimizer"])
def test_a_checkpoint_of_which_anything_is_missing_is_removed(name, tmp_path):
    checkpoints = [checkpoint(tmp_path, step) for step in (9, 10, 11)]
    (checkpoints[1] / name).unlink()
    (checkpoints[2] / name).write_text("{")
    assert complete_checkpoints(tmp_path) == checkpoints[:1]
    assert not checkpoints[1].exists() and not checkpoints[2].exists()


def test_folders_of_a_finished_save_replace_older_ones(tmp_path):
    for name in ("adapter", ".finished/adapter"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_text(name)
    finish_move(tmp_path)
    assert (tmp_path / "adapter" / "weights").read_text() == ".finished/adapter"
    assert not (tmp_path / ".finished").exists()


def test_checkpoints_go_at_one_stroke(tmp_path, monkeypatch):
    checkpoint(tmp_path / "checkpoints", 9)
    with monkeypatch.context() as patch:
        patch.setattr("os.unlink", lambda *_, **__: None)  # as if cut short
        remove_checkpoints(tmp_path / "checkpoints")
    assert [path.name for path in tmp_path.iterdir()] == [".removed"]
    checkpoint(tmp_path / "checkpoints", 3)
    remove_checkpoints(tmp_path / "checkpoints")
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    serve()
