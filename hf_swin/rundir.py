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
"""The folder of a run: what is in it is whole, whatever happened while it was written."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


# Errors of the disk, by number, and as the libraries below word them when they drop the number.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
FULL_WORDS = ("No space left", "File too large", "StreamWriter failed", "unexpected pos", "iostream error")
# What a checkpoint consists of, by its own account.
NOTED = "files.json"


@contextmanager
def saved_whole(out: Path) -> Iterator[Path]:
    """Give an empty folder to write to; when all went well its files take their places in `out`, otherwise none does.

    The one rename to `.finished` decides: before it the old files stand, after it `finish_move` completes the move, at
    once, or when the next run begins.
    """
    finish_move(out)
    saving = out / ".saving"
    shutil.rmtree(saving, ignore_errors=True)
    saving.mkdir()
    try:
        yield saving
    except BaseException:
        shutil.rmtree(saving, ignore_errors=True)
        raise
    saving.rename(out / ".finished")
    finish_move(out)


def finish_move(out: Path) -> None:
    """Move the files of a finished save to their places in `out`, if there are any."""
    finished = out / ".finished"
    if not finished.is_dir():
        return
    for path in sorted(finished.iterdir()):
        if path.is_dir():  # which takes the place of none but an empty one
            shutil.rmtree(out / path.name, ignore_errors=True)
        path.replace(out / path.name)
    finished.rmdir()


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn full disks or memory and folders without permission into a `UserError`; what `out` held before stays."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except UserError:
        raise
    except Exception as error:
        if "shared memory" in str(error):  # where workers put their batches
            remedy = "add --workers 0, or enlarge /dev/shm (docker run --shm-size 2g)"
            raise UserError(f"there is too little shared memory for the workers: {remedy}.") from error
        number = error.errno if isinstance(error, OSError) else None
        full = number in FULL or any(words in str(error) for words in FULL_WORDS)
        if not full and number not in FORBIDDEN:
            raise
        reason = "the disk is full" if full else os.strerror(number)
        raise UserError(
            f"{out} cannot be written ({reason}): make room or choose another --out; what was saved before stands."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file under another name first, so that a reader never finds half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def note_files(checkpoint: Path) -> None:
    """Note in a checkpoint what files it has, and their sizes in bytes; what follows is `trainer_state.json` alone."""
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_text(checkpoint / NOTED, json.dumps(sizes, indent=2))


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return complete checkpoints, oldest first; the rest, cut off while written or deleted, is removed."""
    complete = []
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])):
        if _is_complete(path):
            complete.append(path)
        else:
            shutil.rmtree(path)
    return complete


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())  # the last file that the Trainer writes
        sizes = json.loads((checkpoint / NOTED).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's folder of checkpoints at one stroke: cut short, it leaves nothing that a run would go on from."""
    removed = folder.with_name(".removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
