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
"""`hf-swin predict`: pictures in; a table, CSV or JSON out."""

import csv
import enum
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import UserError, errors_in_one_sentence


SHOWN_ROWS = 20
# What in a folder is taken for a picture; a file that is named by itself is always tried.
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
SUFFIXES |= {".tga", ".tif", ".tiff", ".webp"}
# Above it a label is given, where an image may have several.
THRESHOLD = 0.5


class Dtype(enum.StrEnum):
    """The precision that a model runs in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def predict(
    model: Annotated[str, typer.Argument(help="A folder or Hub id of an image classifier.")],
    pictures: Annotated[list[Path], typer.Argument(help="Files, and folders with all that is in them.")],
    top_k: Annotated[int | None, typer.Option(help="Answers for a picture, 1 if not given.", min=1)] = None,
    out: Annotated[Path | None, typer.Option(help="A .csv, .json or .jsonl file for all answers.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels that the model sees.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 32,
    workers: Annotated[int | None, typer.Option(help="Processes that decode and resize.", min=0)] = None,
    device_map: Annotated[str | None, typer.Option(help="'auto' spreads the model over all devices.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision; as the weights were saved if not given.")] = Dtype.auto,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Unreadable files are no failure.")] = False,
) -> None:
    """Say what is in pictures; exit with 1 if some could not be read."""
    with errors_in_one_sentence("nothing was written."):
        check_suffix(out, FORMATS)
        files, others = find_pictures(pictures)
        from .inference import WORKERS, open_classifier

        opened = open_classifier(model, image_size, device_map, dtype.value)
        workers = WORKERS if workers is None else workers
        rows = answers(*opened, files, top_k, batch_size, min(workers, len(files)))
        unreadable = _show_and_write(rows, len(files), out)
        if others:
            print(f"left alone, because their names are not those of pictures: {others:,}")
        if unreadable:
            print(f"not readable as pictures, {len(unreadable):,} of {len(files):,}:", file=sys.stderr)
            print("\n".join(unreadable), file=sys.stderr)
    raise SystemExit(1 if unreadable and not skip_bad else 0)


def check_suffix(out: Path | None, known: Iterable[str]) -> None:
    """Raise `UserError` if a file to write does not end as one of the known formats, or is a folder."""
    if out is not None and out.suffix.lower() not in known:
        raise UserError(f"--out {out} says no format: end it in {' or '.join(known)}.")
    if out is not None and out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file.")


def find_pictures(sources: Sequence[str | Path]) -> tuple[list[str], int]:
    """Return the pictures among files and folders, folders in order of name, and how many other files these hold.

    Hidden files and folders are left alone. Raises `UserError` if a source is not there, or none has a picture.
    """
    files, others = [], 0
    for source in sources:
        if not Path(source).exists():
            raise UserError(f"{source} is not there: give files or folders of pictures.")
        if Path(source).is_file():
            files.append(str(source))
            continue
        for folder, folders, names in os.walk(source):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            visible = sorted(name for name in names if not name.startswith("."))
            found = [os.path.join(folder, name) for name in visible if Path(name).suffix.lower() in SUFFIXES]
            files += found
            others += len(visible) - len(found)
    if not files:
        raise UserError(
            f"no picture in {', '.join(map(str, sources))}: their names end in {' '.join(sorted(SUFFIXES))}."
        )
    return files, others


def answers(
    model: Any, processor: Any, files: Sequence[str], top_k: int | None = None, batch_size: int = 32, workers: int = 0
) -> Iterator[tuple[str, list[dict[str, Any]] | None]]:
    """Yield each file with its answers, `label` and `score` as a pipeline gives them, or None if it is not readable.

    The `top_k` most probable ones; without it the best, or of a model for several labels an image all above 0.5.
    Within a batch unreadable files come last.
    """
    from .inference import chooses_several, classify

    labels = model.config.id2label
    least = THRESHOLD if top_k is None and chooses_several(model.config) else -1
    count = len(labels) if least == THRESHOLD else min(top_k or 1, len(labels))
    for numbers, probabilities, unreadable in classify(model, processor, files, batch_size, workers):
        best = probabilities.topk(count)
        for number, scores, indices in zip(numbers, best.values.tolist(), best.indices.tolist(), strict=True):
            found = zip(indices, scores, strict=True)
            yield files[number], [{"label": labels[index], "score": score} for index, score in found if score > least]
        yield from ((files[number], None) for number in unreadable)


def _show_and_write(rows: Iterator[tuple[str, list | None]], count: int, out: Path | None) -> list[str]:
    """Write the rows as they come, print a table of the first; return the files that were not readable."""
    from tqdm import tqdm

    shown, unreadable = [], []
    with _written(out) as write:
        for file, found in tqdm(rows, total=count, unit="image", disable=None):
            if found is None:
                unreadable.append(file)
                continue
            write(file, found)
            if len(shown) < SHOWN_ROWS:
                shown.append((file, found))
    _print(shown)
    more = count - len(unreadable) - len(shown)
    if more:
        print(f"… and {more:,} more" + ("" if out else "; --out answers.csv keeps them all"))
    if out:
        print(f"{count - len(unreadable):,} pictures answered in {out}")
    return unreadable


def _print(rows: Sequence[tuple[str, list[dict[str, Any]]]]) -> None:
    if not rows:
        return
    table = Table("picture", "answer", "probability")
    table.columns[2].justify = "right"
    for file, found in rows:
        names = Text("\n".join(answer["label"] for answer in found) or "none above 0.5")
        scores = "\n".join(f"{answer['score']:.1%}" for answer in found)
        table.add_row(Text(file, overflow="fold"), names, scores)
    Console().print(table)


Write = Callable[[str, list[dict[str, Any]]], None]


@contextmanager
def _written(out: Path | None) -> Iterator[Write]:
    """Give a function that writes a row to a file of another name, which becomes `out` when all went well."""
    if out is None:
        yield lambda file, found: None
        return
    from .rundir import disk_errors

    partial = out.with_name(out.name + ".partial")
    with disk_errors(out.parent):
        try:
            stream = partial.open("w", encoding="utf-8", newline="")
            with stream, FORMATS[out.suffix.lower()](stream) as write:
                yield write
            partial.replace(out)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def _csv(stream: TextIO) -> Iterator[Write]:
    writer = csv.writer(stream)
    writer.writerow(["file", "label", "score"])

    def write(file: str, found: list[dict[str, Any]]) -> None:
        lines = [[file, answer["label"], answer["score"]] for answer in found]
        writer.writerows(lines or [[file, "", ""]])

    yield write


@contextmanager
def _json(stream: TextIO) -> Iterator[Write]:
    before = "[\n"

    def write(file: str, found: list[dict[str, Any]]) -> None:
        nonlocal before
        stream.write(before + json.dumps({"file": file, "answers": found}, ensure_ascii=False))
        before = ",\n"

    yield write
    stream.write("[]\n" if before == "[\n" else "\n]\n")


@contextmanager
def _jsonl(stream: TextIO) -> Iterator[Write]:
    yield lambda file, found: print(json.dumps({"file": file, "answers": found}, ensure_ascii=False), file=stream)


FORMATS = {".csv": _csv, ".json": _json, ".jsonl": _jsonl}


if __name__ == "__main__":
    typer.run(predict)
