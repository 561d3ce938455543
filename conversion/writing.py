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
"""The work of `hf-swin convert`: a source is read, changed if asked for, and written as a whole, with a report."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from transformers.dynamic_module_utils import custom_object_save

from hf_swin.errors import UserError
from hf_swin.registration import FAMILIES
from hf_swin.rundir import disk_errors, finish_move, saved_whole, write_text

from . import checkpoints
from .changes import Changes, change
from .files import write_safetensors
from .preprocessing import write_processor
from .reading import OURS, Reading, read
from .targets import write_as


SCRATCH = ".converting-"
NOTES = "conversion.json"
# What a folder of a model may hold and a reader takes for its own.
MODEL_FILES = (
    *("model*.safetensors", "pytorch_model*.bin", "*.index.json", "model.pth", "model.npz", "evidence.safetensors"),
    *("config.json", "preprocessor_config.json", "conversion.json", "metrics.json", "configuration_*.py"),
    "modeling_*.py",
)


def convert_weights(
    source: str | Path, out: Path, to: str = OURS, changes: Changes | None = None, **how: Any
) -> dict[str, Any]:
    """Converts a source to a folder, in this package's format or as `to` says, and returns the report.

    `how` is passed to `read`. All is written, or nothing. Raises `UserError` for what the user can mend.
    """
    reading = read(source, **how)
    with _nothing_left(out), disk_errors(out), tempfile.TemporaryDirectory(dir=out, prefix=SCRATCH) as scratch:
        finish_move(out)
        report = describe(reading, str(source))
        if changes:
            plain = Path(scratch) / "plain"
            write_ours(reading, plain, report)
            changed = Path(scratch) / "changed"
            report["resized"] = change(plain, changed, changes, reading.checkpoint)
            if report["resized"]:
                report["top1"] = None  # of the published model, which this is no more
            reading = read(changed)
        with saved_whole(out) as folder:
            if to != OURS:
                report["left_to_user"] += write_as(reading, folder, to)
            elif changes:
                shutil.copytree(changed, folder, dirs_exist_ok=True)
            else:
                write_ours(reading, folder, report)
            if to == OURS:
                write_text(folder / NOTES, json.dumps({**report, **_origin(source, report)}, indent=2) + "\n")
            _refuse_leftovers(out, folder, Path(source))
    return report


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Removes the folders that were made for nothing, and what a run that was killed left."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    for scratch in out.glob(SCRATCH + "*"):
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _refuse_leftovers(out: Path, written: Path, source: Path) -> None:
    """Raises `UserError` where files of another model would stay beside those just written."""
    mixed = {path.name for pattern in MODEL_FILES for path in out.glob(pattern) if path.resolve() != source.resolve()}
    left = sorted(mixed - {path.name for path in written.iterdir()})
    if left:
        more = f" and {len(left) - 4} more" if len(left) > 4 else ""
        raise UserError(
            f"{out} holds another model, of which {', '.join(left[:4])}{more} would stay: choose another --out or "
            "delete what it holds."
        )


def _origin(source: str | Path, report: dict[str, Any]) -> dict[str, Any]:
    """What the notes of a folder of this package say of where it came from: that stays true of what is made of it."""
    notes = Path(source) / NOTES
    if report["format"] not in FAMILIES or not notes.is_file():
        return {}
    before = json.loads(notes.read_text(encoding="utf-8"))
    kept = ("source", "format", "checkpoint", "license", "base_model", "rules", "dropped")
    top1 = None if report["resized"] else before.get("top1")
    return {**{key: before[key] for key in kept}, "top1": top1, "resized": before["resized"] + report["resized"]}


def export(folder: Path, out: Path, to: str) -> None:
    """Writes a model of this package in another format; raises `UserError` with what that format cannot hold."""
    write_as(read(folder), out, to)


def write_ours(reading: Reading, folder: Path, report: dict[str, Any]) -> None:
    """Writes weights, config, code, image processor and labels in this package's format."""
    folder.mkdir(exist_ok=True)
    config, shapes = reading.config, reading.shapes()
    names = checkpoints.id2label(reading.checkpoint.labels) if reading.checkpoint else None
    if names and len(names) == config.num_labels and config.id2label[0] == "LABEL_0":
        config.id2label, config.label2id = names, {name: index for index, name in names.items()}
    with torch.device("meta"):
        model = reading.model_class(config)
    config.dtype = reduce(torch.promote_types, (tensor.dtype for tensor in shapes.values()))
    custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    write_safetensors(folder / "model.safetensors", shapes, reading.tensors())
    report["left_to_user"] += write_processor(reading, folder)


def describe(reading: Reading, source: str) -> dict[str, Any]:
    """Returns what the report of a conversion says, as `conversion.json` keeps it and the model card prints it."""
    known, shapes = reading.checkpoint, reading.shapes()
    left = [*reading.left_to_user]
    if reading.config.architectures[0].endswith("Model"):
        left.append("the file has no classifier: fine-tuning starts a new one")
    elif reading.config.id2label.get(0) == "LABEL_0" and not (known and checkpoints.id2label(known.labels)):
        left.append("the file does not name its labels: set id2label in config.json")
    if known is None and reading.format not in FAMILIES:
        left.append("the file is of no published name: licence and origin are yours to write on the card")
    return {
        "source": Path(source).name if Path(source).exists() else source,  # no path of this machine
        "format": reading.format,
        "checkpoint": known and known.name,
        "license": known and known.licence.lower(),
        "base_model": known.name if known and known.name.count("/") == 1 and "." not in known.name[-4:] else None,
        "top1": known and known.top1,
        "class": reading.config.architectures[0],
        "tensors": len(shapes),
        "parameters": sum(tensor.numel() for tensor in shapes.values()),
        "rules": reading.rules(),
        "dropped": reading.dropped(),
        "resized": [],
        "left_to_user": left,
    }


def lines_of(report: dict[str, Any], out: Path, to: str) -> list[str]:
    """Returns the report as lines for the terminal."""
    dropped = report["dropped"]
    more = f" and {len(dropped) - 6} more" if len(dropped) > 6 else ""
    return [
        f"{report['source']}: {report['format']}"
        + (f", known as {report['checkpoint']}" if report["checkpoint"] else ""),
        f"{report['class']}, {report['tensors']} tensors, {report['parameters']:,} parameters",
        *(f"  {count:5} x {rule}" for rule, count in report["rules"].items()),
        *([f"left out: {', '.join(dropped[:6])}{more}"] if dropped else []),
        *(f"changed: {sentence}" for sentence in report["resized"]),
        *(f"left to you: {sentence}" for sentence in report["left_to_user"]),
        f"written to {out}" + ("" if to == OURS else f" as {to}"),
    ]
