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
"""A case of `hf-swin bench`: variants are built, compared with ours, and timed in rounds, each in its turn."""

import gc
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .benchmark_measures import Product, peak_memory, quiet, timed, work_of
from .benchmark_variants import OURS, Case, NotAvailable, Work, build
from .errors import one_line


# How far answers may be from ours in float32, relative to the largest. A dtype of 8 bits leaves some 1 % after twelve
# blocks, in whatever order they are rounded; a mistake leaves 100 %.
BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2}
# A turn lasts so many seconds, in as many calls as that takes, after one that brings the weights back into the caches.
TURN = 0.2
# Rounds end early after so many seconds, but not before there are so many.
LONGEST, FEWEST = 90, 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What all cases of a run share: device, threads, rounds, and whose time the others are divided by."""

    device: torch.device
    threads: int
    rounds: int
    reference: str

    @property
    def clock(self) -> str:
        """Which clock ratios are taken by: processor time is steadier, and with one thread it is the whole truth."""
        return "cpu" if self.threads == 1 and self.device.type == "cpu" else "wall"


@dataclass
class Row:
    """A variant in a case: seconds per call in each round, or the reason why there are none."""

    variant: str
    reason: str = ""
    error: float | None = None
    first_call: float | None = None
    memory: int | None = None
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass
class Result:
    """A case and what was measured: `work` in operations, `peak` in operations a second in each round."""

    case: Case
    work: int
    reference: str
    clock: str
    rows: list[Row]
    peak: list[float] = field(default_factory=list)
    complete: bool = False

    def row(self, variant: str) -> Row | None:
        """Return the row of a variant that was timed, or None."""
        return next((row for row in self.rows if row.variant == variant and row.wall), None)

    def seconds(self, row: Row) -> float:
        """Return the median time of a call."""
        return statistics.median(getattr(row, self.clock))

    def ratios(self, row: Row, reference: Row | None = None) -> list[float]:
        """Return how many times as long as the reference a variant took, in each round."""
        other = reference or self.row(self.reference)
        return [a / b for a, b in zip(getattr(row, self.clock), getattr(other, self.clock), strict=True)]

    def shares(self, row: Row) -> list[float]:
        """Return in each round the rate of a variant as a share of that of the fastest matrix product."""
        return [self.work / time / peak for time, peak in zip(getattr(row, self.clock), self.peak, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def measure(
    case: Case, variants: Sequence[str], folder: Path, settings: Settings, with_memory: bool, say: Say
) -> Result:
    """Return what the variants take for a case, whose weights are in a folder; Ctrl-C leaves it incomplete."""
    result = Result(case, work_of(case), settings.reference, settings.clock, list(map(Row, variants)))
    ready: dict[str, Work] = {}
    with suppress(KeyboardInterrupt):
        _prepare(result, ready, folder, settings.device, say)
        if result.reference not in ready:
            result.reference = next((name for name in (*OURS, *ready) if name in ready), result.reference)
        if with_memory:
            for row in [row for row in result.rows if row.variant in ready]:
                say(f"memory of {row.variant}")
                row.memory = _memory(row, folder, case, settings)
        _rounds(result, ready, settings, say)
        result.complete = True
    ready.clear()
    gc.collect()
    torch.compiler.reset()  # or compiled code of one case would be tried, and given up, in the next
    return result


def _prepare(result: Result, ready: dict[str, Work], folder: Path, device: torch.device, say: Say) -> None:
    """Build every variant and compare its answer with ours; what fails or differs says so in its row."""
    case = result.case
    say("our answers in float32")
    plain = Case(case.model, case.mode, "float32", case.batch, case.size)
    expected = _answer(build("hf_swin", folder, plain, device), device)[1]
    for row in result.rows:
        say(f"{row.variant}: building" + (" and compiling" if "compiled" in row.variant else ""))
        try:
            with quiet():
                work = build(row.variant, folder, case, device)
                row.first_call, answer = _answer(work, device)
        except NotAvailable as reason:
            row.reason = f"not available: {reason}"
        except Exception as error:  # whatever a library raises: the others go on
            row.reason = f"failed: {type(error).__name__}: {one_line(error)}"
        else:
            row.error = max(_distance(answer[name], expected[name]) for name in expected)
            if row.error <= BOUNDS[case.dtype]:
                ready[row.variant] = work
            else:
                row.reason = f"differs by {row.error:.1e} from hf_swin in float32, so it was not timed"


def _answer(work: Work, device: torch.device) -> tuple[float, dict[str, torch.Tensor]]:
    """Seconds of the first call, and what it answers."""
    outputs = []
    seconds, _ = timed(lambda: outputs.append(work.run()), device)
    return seconds, {name: tensor.float().cpu().clone() for name, tensor in work.answer(outputs[0]).items()}


def _distance(answer: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference relative to the largest value; infinite for something else or no number."""
    if answer.shape != expected.shape or not answer.isfinite().all():
        return float("inf")
    return ((answer - expected).abs().max() / expected.abs().max()).item()


def _memory(row: Row, folder: Path, case: Case, settings: Settings) -> int | None:
    try:
        return peak_memory(row.variant, folder, case, settings.device, settings.threads)
    except BrokenProcessPool:
        row.reason = "its process was ended while its memory was measured"
    except Exception as error:  # its time can be measured all the same
        row.reason = f"no memory: {type(error).__name__}: {one_line(error)}"
    return None


def _rounds(result: Result, ready: dict[str, Work], settings: Settings, say: Say) -> None:
    """Let every variant have its turn in each round, in an order that rotates; a round counts when it is whole."""
    device, names = settings.device, list(ready)
    if not names:
        return
    product = Product(result.case, device)
    rows = {row.variant: row for row in result.rows}
    warm = timed(ready[result.reference].run, device)[0]
    calls = max(1, round(TURN / warm))
    spent = 0.0
    for number in range(settings.rounds):
        say(f"round {number + 1} of {settings.rounds}")
        first = number % len(names)
        peak, samples = product.rate(), {}
        for name in [*names[first:], *names[:first]]:
            if calls > 1:
                ready[name].run()
            samples[name] = timed(ready[name].run, device, calls)
            spent += calls * samples[name][0]
        result.peak.append(peak)
        for name, (wall, cpu) in samples.items():
            rows[name].wall.append(wall)
            rows[name].cpu.append(cpu)
        if spent > LONGEST and number + 1 >= FEWEST:
            return
