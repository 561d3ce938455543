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
"""`hf-swin bench`: this package and its peers on the same weights, pixels and threads, in one run."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import UserError, errors_in_one_sentence, one_line


if TYPE_CHECKING:
    import torch

    from .benchmark_report import Report
    from .benchmark_rounds import Result, Settings
    from .benchmark_variants import Case

ROUNDS, QUICK_ROUNDS = 7, 5
START_ROUNDS = 7
# The model that start-up and other sizes are asked of.
BESIDE = "swin-t"
NATIVE = "native"
OPTIMIZED = "hf_swin optimized"
# Words for several variants at once.
PLAIN, COMPILED, ALL = "plain", "compiled", "all"


@dataclass(frozen=True)
class Plan:
    """Cases as a product of lists; sizes are sides in pixels or `native`, variants also plain, compiled or all."""

    models: tuple[str, ...] = ("swin-t",)
    modes: tuple[str, ...] = ("inference", "training")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    batches: tuple[str, ...] = ("1", "8")
    sizes: tuple[str, ...] = (NATIVE,)
    variants: tuple[str, ...] = (PLAIN,)
    memory: bool = True


_FEW = ("hf_swin", OPTIMIZED, "transformers sdpa", "timm", "torchvision", "openvino")
_WIDE = (OPTIMIZED, "transformers sdpa")
QUICK = (
    Plan(modes=("inference",), batches=("1",), variants=_FEW, memory=False),
    Plan(modes=("training",), dtypes=("float32",), batches=("1",), variants=_FEW),
)
# Compiling takes one to two minutes for each case and variant: it is measured where it matters most.
FULL = (
    Plan(modes=("inference",), batches=("1",), variants=(PLAIN, "hf_swin optimized compiled", "transformers compiled")),
    Plan(modes=("inference",), batches=("8",), memory=False),
    Plan(modes=("training",), batches=("8",)),
    Plan(models=("vit-b16",), modes=("inference",), batches=("1",), memory=False),
    Plan(models=("vit-b16",), modes=("training",), dtypes=("float32",), batches=("1",), memory=False),
    Plan(models=("swin-v2-t",), modes=("inference",), batches=("1",), memory=False),
    Plan(
        modes=("inference",),
        dtypes=("float32",),
        batches=("1",),
        sizes=("448", "672", "896", "1344"),
        variants=_WIDE,
        memory=False,
    ),
)


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Two minutes: Swin-T, the peers that start fast.")] = False,
    models: Annotated[str | None, typer.Option(help="Short names, such as vit-b16, swin-t, swin-v2-t.")] = None,
    modes: Annotated[str | None, typer.Option(help="inference, training.")] = None,
    dtypes: Annotated[str | None, typer.Option(help="float32, bfloat16.")] = None,
    batches: Annotated[str | None, typer.Option(help="Images at a time.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Sides in pixels, or native.")] = None,
    variants: Annotated[str | None, typer.Option(help="Names of the table, plain, compiled or all.")] = None,
    reference: Annotated[str, typer.Option(help="The variant that the others are compared with.")] = OPTIMIZED,
    rounds: Annotated[int | None, typer.Option(help="Turns of every variant.", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of every library; by default all cores.", min=1)] = None,
    device: Annotated[str, typer.Option(help="Device of torch, such as cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for results.json and ratios.png.")] = Path("bench"),
) -> None:
    """Measure this package and its peers on the same work; lists are separated by commas.

    Any list that is given replaces the plan by a product of all lists: those not given are swin-t, both modes, both
    dtypes, batches of 1 and 8, the model's own size, and every variant that is not compiled.
    """
    with errors_in_one_sentence(f"what was measured is in {out}."):
        lists = {"models": models, "modes": modes, "dtypes": dtypes, "batches": batches}
        lists |= {"sizes": sizes, "variants": variants}
        chosen = {name: _split(text) for name, text in lists.items() if text is not None}
        plans = (Plan(**chosen),) if chosen else QUICK if quick else FULL
        settings = _settings(device, threads, rounds or (QUICK_ROUNDS if quick else ROUNDS), reference)
        plans = plans if chosen else _without_emulation(plans, settings.device)
        # Start-up and other sizes are questions of their own, which a choice of cases does not ask.
        run(plans, settings, out, beside=not (chosen or quick))


def _without_emulation(plans: Iterable[Plan], device: "torch.device") -> list[Plan]:
    """Leave out dtypes that the device only emulates, which takes long and tells nothing; say so."""
    from .benchmark_measures import computes

    left_out = sorted({dtype for plan in plans for dtype in plan.dtypes if not computes(dtype, device)})
    if left_out:
        typer.echo(f"{', '.join(left_out)}: left out, this processor has no such products (--dtypes measures them).")
    return [replace(plan, dtypes=tuple(dtype for dtype in plan.dtypes if dtype not in left_out)) for plan in plans]


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _settings(device: str, threads: int | None, rounds: int, reference: str) -> "Settings":
    """Check what all cases share, and set the threads of torch; raises `UserError`."""
    import torch

    from .benchmark_rounds import Settings
    from .benchmark_variants import VARIANTS

    if reference not in VARIANTS:
        raise UserError(f"--reference {reference!r} is no variant: choose one of {', '.join(VARIANTS)}.")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: torch cannot use it here; choose another, such as cpu.") from error
    if threads:
        torch.set_num_threads(threads)
    return Settings(torch.device(device), torch.get_num_threads(), rounds, reference)


def run(plans: Iterable[Plan], settings: "Settings", out: Path, beside: bool) -> None:
    """Measure plans, and with `beside` start-up and other sizes; print tables, write files after each case.

    Raises `UserError` for names that are in no table.
    """
    from .benchmark_measures import machine, versions
    from .benchmark_report import Report
    from .rundir import disk_errors

    cases = cases_of(plans)
    about = {"versions": versions(), "machine": machine(settings.device, settings.threads)}
    # The scratch folder is new, because compiled code of an earlier run would make the first call look fast.
    with (
        disk_errors(out),
        tempfile.TemporaryDirectory(prefix="hf-swin-bench-") as scratch,
        Report(out, about) as report,
    ):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(scratch) / "inductor")
        for result in _measured(cases, settings, Path(scratch), report):
            report.add(result)
            if not result.complete:
                raise KeyboardInterrupt
        if beside:
            _measure_beside(report, Path(scratch), settings)


def _measured(
    cases: "dict[Case, tuple[list[str], bool]]", settings: "Settings", scratch: Path, report: "Report"
) -> "Iterator[Result]":
    """Write the weights of each model and size once, and measure the cases that they serve."""
    from .benchmark_rounds import measure
    from .benchmark_variants import write_weights

    groups: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.model, case.size), []).append(case)
    for (model, size), members in groups.items():
        report.say(f"{model}, {size} px: weights")
        folder = scratch / f"{model}-{size}"
        write_weights(model, size, folder)
        for case in members:
            variants, memory = cases[case]
            yield measure(case, variants, folder, settings, memory, report.say)
        shutil.rmtree(folder)


def _measure_beside(report: "Report", scratch: Path, settings: "Settings") -> None:
    """Measure what is no case: start-up, other sizes, and how often sizes in turn are compiled."""
    from . import benchmark_startup
    from .benchmark_variants import native_size, write_weights

    model, device = BESIDE, settings.device
    folder = scratch / "beside"
    write_weights(model, native_size(model), folder)
    questions = {
        "start_up": lambda: benchmark_startup.start_up(folder, START_ROUNDS),
        "second_sizes": lambda: benchmark_startup.second_sizes(folder, device),
        "mixed_sizes": lambda: benchmark_startup.mixed_sizes(folder, device),
    }
    for name, question in questions.items():
        report.say(name.replace("_", " "))
        try:
            report.add_beside(name, question())
        except Exception as error:  # such as a compiler that is not there: what was measured is written all the same
            report.print(f"{name}: failed: {type(error).__name__}: {one_line(error)}")


def cases_of(plans: Iterable[Plan]) -> "dict[Case, tuple[list[str], bool]]":
    """Return each case of some plans once, with its variants and whether memory is measured.

    Raises `UserError` for names that are in no table, and numbers that are none.
    """
    from .benchmark_variants import DTYPES, MODELS, MODES, Case, native_size

    cases: dict[Case, tuple[list[str], bool]] = {}
    for plan in plans:
        _check(plan.models, MODELS, "models")
        _check(plan.modes, MODES, "modes")
        _check(plan.dtypes, DTYPES, "dtypes")
        variants = _variants(plan.variants)
        for model, size, mode, dtype, batch in itertools.product(
            plan.models, plan.sizes, plan.modes, plan.dtypes, plan.batches
        ):
            pixels = native_size(model) if size == NATIVE else _positive(size, "sizes")
            case = Case(model, mode, dtype, _positive(batch, "batches"), pixels)
            known, memory = cases.get(case, ([], False))
            cases[case] = (list(dict.fromkeys([*known, *variants])), memory or plan.memory)
    return cases


def _variants(names: Iterable[str]) -> list[str]:
    from .benchmark_variants import VARIANTS

    words = {
        PLAIN: [name for name, variant in VARIANTS.items() if not variant.compiled],
        COMPILED: [name for name, variant in VARIANTS.items() if variant.compiled],
        ALL: list(VARIANTS),
    }
    _check(names, [*words, *VARIANTS], "variants")
    return [variant for name in names for variant in words.get(name, [name])]


def _check(names: Iterable[str], known: Iterable[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"--{option} {name!r} is not known: choose from {', '.join(known)}.")


def _positive(text: str, option: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--{option} {text!r} is no positive number.")
    return int(text)
