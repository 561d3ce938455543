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
"""What `hf-swin bench` shows and leaves behind: tables, a file of all samples, a plot."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .benchmark_rounds import Result, Row, quartiles
from .benchmark_targets import Verdict, judge
from .benchmark_variants import OURS
from .pictures import BLUE, INK, MUTED, ORANGE, PAPER, STYLE, save_png
from .rundir import write_text


RESULTS, PLOT = "results.json", "ratios.png"
# Panels of the plot side by side.
COLUMNS = 2


class Report:
    """Shows a run while it goes on, and writes what there is after each case; a context that ends with verdicts."""

    def __init__(self, out: Path, about: dict[str, Any]):
        self.out, self.about = out, about
        self.results: list[Result] = []
        self.beside: dict[str, Any] = {}
        # A pipe has no width of its own.
        self.console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
        self.status = self.console.status("")

    def __enter__(self) -> "Report":
        machine, versions = self.about["machine"], self.about["versions"]
        self.print(f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['device']}")
        self.print(", ".join(f"{name} {number}" for name, number in versions.items() if number))
        self.status.start()
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self.status.stop()
        if kind not in (None, KeyboardInterrupt) or not (self.results or self.beside):
            return
        verdicts = judge(self.results, self.beside)
        if verdicts:
            self.console.print(verdict_table(verdicts))
        self.print(f"all samples: {self.out / RESULTS}, plot: {self.out / PLOT}")

    def say(self, step: str) -> None:
        """Show what is being done, on a terminal only."""
        self.status.update(step)

    def print(self, line: str) -> None:
        """Show a line that stays."""
        self.console.print(Text(line))

    def add(self, result: Result) -> None:
        """Show a case, and write it with those before it."""
        self.results.append(result)
        if result.peak:
            self.console.print(table_of(result))
        else:
            self.print(f"\n {result.case}: nothing was timed")
        for line in reasons(result):
            self.print(line)
        self._write()

    def add_beside(self, name: str, measured: Any) -> None:
        """Keep and write what was measured beside cases; the verdicts show it."""
        self.beside[name] = measured
        self._write()

    def _write(self) -> None:
        write_results(self.out, self.about, self.results, self.beside, judge(self.results, self.beside))


def table_of(result: Result) -> Table:
    """Return the timed variants of a case, fastest first."""
    clock = "processor time" if result.clock == "cpu" else "time"
    table = Table(title=f"{result.case} ({len(result.peak)} rounds)", box=box.SIMPLE, title_justify="left")
    table.add_column("variant")
    headers = ("ms", "CPU ms", f"{clock} / {result.reference}", "of limit", "MB", "first call s", "error")
    for header in headers:
        table.add_column(header, justify="right")
    for row in _fastest_first(result):
        table.add_row(*_cells(result, row), style="bold" if row.variant == result.reference else "")
    return table


def _fastest_first(result: Result) -> list[Row]:
    return sorted((row for row in result.rows if row.wall), key=result.seconds)


def _cells(result: Result, row: Row) -> list[str]:
    low, ratio, high = quartiles(result.ratios(row))
    return [
        row.variant,
        _number(1e3 * quartiles(row.wall)[1]),
        _number(1e3 * quartiles(row.cpu)[1]),
        f"{ratio:.2f} ({low:.2f}-{high:.2f})",
        f"{quartiles(result.shares(row))[1]:.0%}",
        f"{row.memory / 1e6:,.0f}" if row.memory is not None else "-",
        f"{row.first_call:.1f}",
        f"{row.error:.0e}",
    ]


def _number(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def reasons(result: Result) -> list[str]:
    """Return a line for each variant of a case that has something to say instead of a time, or beside it."""
    return [f"  {row.variant}: {row.reason}" for row in result.rows if row.reason]


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the promises of this package and what the run says of them."""
    table = Table("promise", "where", title="Promises", box=box.SIMPLE, title_justify="left")
    for header in ("bound", "measured"):
        table.add_column(header, justify="right")
    table.add_column("")
    for verdict in verdicts:
        measured = f"{verdict.figure:.2f}"
        if verdict.low != verdict.high:
            measured += f" ({verdict.low:.2f}-{verdict.high:.2f})"
        word = "reached" if verdict.reached else "missed"
        close = ", within the spread" if verdict.close else ""
        style = "green" if verdict.reached else "red"
        table.add_row(verdict.promise, verdict.where, f"{verdict.bound:g}", measured, Text(word + close, style))
    return table


def write_results(
    out: Path, about: dict[str, Any], results: Sequence[Result], beside: dict[str, Any], verdicts: Sequence[Verdict]
) -> None:
    """Write `results.json`: machine, versions, every sample, summaries in seconds, verdicts; and the plot of ratios."""
    cases = [{**asdict(result), "summary": _summary(result)} for result in results]
    content = {**about, "cases": cases, **beside, "targets": [asdict(verdict) for verdict in verdicts]}
    write_text(out / RESULTS, json.dumps(content, indent=1) + "\n")
    timed = [result for result in results if result.peak]
    if timed:
        save_png(ratio_plot(timed, about), out / PLOT)


def _summary(result: Result) -> dict[str, dict[str, Any]]:
    return {
        row.variant: {
            "wall": quartiles(row.wall)[1],
            "cpu": quartiles(row.cpu)[1],
            "ratio": quartiles(result.ratios(row)),
            "share_of_limit": quartiles(result.shares(row))[1],
        }
        for row in _fastest_first(result)
    }


def ratio_plot(results: Sequence[Result], about: dict[str, Any]) -> Figure:
    """Return a panel of bars for each case: the time of every variant as a multiple of the reference's."""
    columns = min(COLUMNS, len(results))
    rows = math.ceil(len(results) / columns)
    most = max(len(_fastest_first(result)) for result in results)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6 * columns, (1.3 + 0.34 * most) * rows + 0.7), dpi=110, layout="constrained")
        machine = about["machine"]
        threads = f"{machine['threads']} thread" + "s" * (machine["threads"] > 1)
        title = f"Time as a multiple of the reference's: {machine['cpu']}, {threads}, {machine['device']}"
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=14)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        for axes, result in zip(panels, results, strict=False):
            axes.set_axis_on()
            _bars(axes, result)
    return figure


def _bars(axes: Axes, result: Result) -> None:
    rows = _fastest_first(result)
    spread = [quartiles(result.ratios(row)) for row in rows]
    middle = [ratio for _, ratio, _ in spread]
    whiskers = [[ratio - low for low, ratio, _ in spread], [high - ratio for _, ratio, high in spread]]
    colours = [BLUE if row.variant in OURS else ORANGE for row in rows]
    places = range(len(rows))
    axes.barh(places, middle, 0.68, color=colours, xerr=whiskers, ecolor=INK, error_kw={"elinewidth": 1, "capsize": 3})
    axes.axvline(1, color=MUTED, linewidth=1, linestyle=":")
    for place, row, (_, ratio, high) in zip(places, rows, spread, strict=True):
        text = f"{ratio:.2f} x   {_number(1e3 * result.seconds(row))} ms"
        look = {
            "textcoords": "offset points",
            "va": "center",
            "size": 9.5,
            "bbox": {"fc": PAPER, "ec": PAPER, "pad": 1},
        }
        axes.annotate(text, (high, place), xytext=(7, 0), **look)
    axes.set_yticks(places, [row.variant for row in rows])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    # Room for the words at the end of the longest bar.
    axes.set(
        title=str(result.case), xlabel=f"time / {result.reference}", xlim=(0, 1.38 * max(high for _, _, high in spread))
    )
