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
"""What this package promises of its speed, as a table, and what a run of `hf-swin bench` says of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .benchmark_rounds import Result, Row, quartiles
from .benchmark_startup import recompilations
from .benchmark_variants import ENGINES, OURS, VARIANTS


PYTORCH_PEERS = tuple(name for name in VARIANTS if name not in (*OURS, *ENGINES))
TRANSFORMERS = tuple(name for name in PYTORCH_PEERS if name.startswith("transformers"))

Figures = list[float]


@dataclass(frozen=True)
class Verdict:
    """A promise, where it was measured, its bound, the figure with its quartiles, and whether it was kept."""

    promise: str
    where: str
    bound: float
    low: float
    figure: float
    high: float
    reached: bool
    # Rounds disagree: with these quartiles another run may say the opposite.
    close: bool


def _ours(result: Result) -> Row | None:
    row = result.row(result.reference)
    return row if result.reference in OURS else None


def _faster_than(peers: Sequence[str]) -> Callable[[Result], Figures]:
    """How many times as long as ours the fastest of some peers took."""

    def ratios(result: Result) -> Figures:
        rows = [row for row in map(result.row, peers) if row]
        return result.ratios(min(rows, key=result.seconds)) if rows and _ours(result) else []

    return ratios


def _share(result: Result) -> Figures:
    ours = _ours(result)
    return result.shares(ours) if ours else []


def _memory(result: Result) -> Figures:
    ours = _ours(result)
    peers = [row.memory for row in map(result.row, PYTORCH_PEERS) if row and row.memory]
    return [ours.memory / min(peers)] if ours and ours.memory and peers else []


@dataclass(frozen=True)
class Target:
    """A promise of some cases (model, mode, and a dtype unless it is for all) and its bound, from below or above."""

    promise: str
    model: str
    mode: str
    dtype: str | None
    figures: Callable[[Result], Figures]
    bound: float
    at_most: bool = False


_BEST, _ENGINES = _faster_than(PYTORCH_PEERS), _faster_than(ENGINES)
TARGETS = (
    Target("speed / best PyTorch peer", "swin-t", "inference", "float32", _BEST, 1.25),
    Target("speed / best PyTorch peer", "swin-t", "inference", "bfloat16", _BEST, 1.5),
    Target("share of the matrix-product limit", "swin-t", "inference", "float32", _share, 0.85),
    Target("share of the matrix-product limit", "swin-t", "inference", "bfloat16", _share, 0.5),
    Target("speed / best of ONNX Runtime, OpenVINO", "swin-t", "inference", None, _ENGINES, 1.0),
    Target("speed / best PyTorch peer", "swin-t", "training", None, _BEST, 1.3),
    Target("memory / least of the PyTorch peers", "swin-t", "training", None, _memory, 0.8, at_most=True),
    Target("speed / best PyTorch peer", "vit-b16", "inference", None, _BEST, 1.05),
    Target("speed / best PyTorch peer", "vit-b16", "training", None, _BEST, 1.1),
    Target("speed / transformers", "swin-v2-t", "inference", None, _faster_than(TRANSFORMERS), 1.5),
)
# Time per pixel at any size against that at the smallest; both in units of the product measured beside them.
FLAT = 1.1
# The first call at a new size against the calls after it: a table or mask may be looked up, nothing is built again.
NO_REBUILD = 1.5


def judge(results: Sequence[Result], beside: dict[str, Any]) -> list[Verdict]:
    """Return a verdict for every target that the results, and the measures beside cases, can answer."""
    verdicts = []
    for target in TARGETS:
        for result in results:
            case = result.case
            if (case.model, case.mode) != (target.model, target.mode) or target.dtype not in (None, case.dtype):
                continue
            figures = target.figures(result)
            if figures:
                verdicts.append(_verdict(target.promise, str(case), target.bound, figures, target.at_most))
    return verdicts + _flatness(results) + _beside(beside)


def _verdict(promise: str, where: str, bound: float, figures: Figures, at_most: bool = False) -> Verdict:
    low, middle, high = quartiles(figures)
    reached = middle <= bound if at_most else middle >= bound
    return Verdict(promise, where, bound, low, middle, high, reached, low < bound < high)


def _flatness(results: Sequence[Result]) -> list[Verdict]:
    """Swin at several sizes: what a pixel takes at the most, as a multiple of what it takes at the smallest size."""
    series: dict[tuple, dict[int, float]] = {}
    for result in results:
        case, ours = result.case, _ours(result)
        if case.model.startswith("swin") and ours:
            products = [time * peak for time, peak in zip(getattr(ours, result.clock), result.peak, strict=True)]
            key = (case.model, case.mode, case.dtype, case.batch, result.reference)
            series.setdefault(key, {})[case.size] = median(products) / case.size**2
    verdicts = []
    for (model, mode, dtype, batch, _), by_size in series.items():
        smallest, *others = sorted(by_size)
        if others:
            worst = max(others, key=by_size.__getitem__)
            where = f"{model}, {mode}, {dtype}, batch {batch}, {worst} against {smallest} px"
            figures = [by_size[worst] / by_size[smallest]]
            verdicts.append(_verdict("time of a pixel / at the smallest size", where, FLAT, figures, at_most=True))
    return verdicts


def _beside(beside: dict[str, Any]) -> list[Verdict]:
    verdicts = []
    start = beside.get("start_up")
    for part in ("import", "from_pretrained") if start else ():
        figures = [a / b for a, b in zip(start["transformers"][part], start["hf_swin"][part], strict=True)]
        verdicts.append(_verdict("speed / transformers", part, 1.0, figures))
    for entry in beside.get("second_sizes", ()):
        where = "hf_swin, {} x {} px after 224".format(*entry["size"])
        figures = [entry["first_call"] / median(entry["later_calls"])]
        verdicts.append(_verdict("first call at a new size / later ones", where, NO_REBUILD, figures, at_most=True))
    if "mixed_sizes" in beside:
        figures = [float(recompilations(beside["mixed_sizes"]))]
        where = "hf_swin, dynamic=True, sizes in turn"
        verdicts.append(_verdict("compilations for known sizes", where, 0.0, figures, at_most=True))
    return verdicts
