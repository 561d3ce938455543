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
"""How `hf-swin bench` measures: clocks, peak memory, work, and what the machine can do at most."""

import ctypes
import gc
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.utils.logging import disable_progress_bar

import hf_swin

from .benchmark_variants import Case, build, config_of
from .complexity import on_meta
from .kernels import cpu_flags


LIBRARIES = ("torch", "transformers", "timm", "torchvision", "onnxruntime", "openvino", "torchao")
# What tells fast matrix products from slow ones, by the names of Linux.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")
# Those that tell of products in bfloat16; a processor without them takes several times as long for one as in float32.
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
# Shapes (rows, inner, columns) among which the fastest product is looked for: squares, and tall ones as layers have.
PRODUCTS = ((1024, 1024, 1024), (2048, 2048, 2048), (3072, 3072, 3072), (3136, 768, 3072), (12544, 384, 1536))
# How long the fastest product is measured, and how long the search for it may try a shape, in seconds.
PRODUCT_SECONDS, PATIENCE = 0.2, 2
# Runs in a process of its own before its peak is read; the first run compiles or prepares and is not among them.
MEMORY_RUNS = 3
# Imported once for all these processes, so that what libraries import is not counted as a model's.
PRELOAD = [__name__, "torchvision.models", "timm", "onnxruntime", "openvino", "torch.optim.adamw"]
PRELOAD += [f"transformers.models.{name}.modeling_{name}" for name in ("swin", "swinv2", "vit")]
PRELOAD += ["hf_swin.modeling_swin_v2", "hf_swin.modeling_vit"]


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(run: Callable[[], Any], device: torch.device, calls: int = 1) -> tuple[float, float]:
    """Return seconds per call by the clock on the wall, and seconds of processors of this process."""
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    synchronize(device)
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to themselves the warnings with which libraries export, trace and compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Product:
    """The fastest matrix product of a machine in a dtype, found once, measured again in each round."""

    def __init__(self, case: Case, device: torch.device):
        self.device, fastest = device, 0.0
        for rows, inner, columns in PRODUCTS:
            left, right = torch.randn(rows, inner, device=device), torch.randn(inner, columns, device=device)
            left, right = left.to(case.torch_dtype), right.to(case.torch_dtype)
            begin = time.perf_counter()
            rate = self._rate(left, right)
            if rate > fastest:
                fastest, self.left, self.right = rate, left, right
            if time.perf_counter() - begin > PATIENCE:
                break  # a processor without the dtype: larger products take minutes, and tell no more

    def _rate(self, left: torch.Tensor, right: torch.Tensor) -> float:
        def run() -> None:
            torch.matmul(left, right, out=out)

        out = left @ right
        # As long as a small model takes, because a machine that has rested is faster for a moment.
        calls = max(1, round(PRODUCT_SECONDS / timed(run, self.device)[0]))
        seconds, _ = timed(run, self.device, calls)
        return 2 * left.numel() * right.shape[1] / seconds

    def rate(self) -> float:
        """Return floating-point operations a second, now."""
        return self._rate(self.left, self.right)


def work_of(case: Case) -> int:
    """Return the floating-point operations in products and convolutions of a case, counted without doing them."""
    model = on_meta(config_of(case.model, case.size)).train(case.trains)
    pixels = torch.empty(case.batch, 3, case.size, case.size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(case.trains):
        logits = model(pixels).logits
        if case.trains:
            logits.sum().backward()
    return counter.get_total_flops()


def peak_memory(name: str, folder: Path, case: Case, device: torch.device, threads: int) -> int:
    """Return bytes at the peak of a variant at work, above those before it was built, in a process of its own.

    Raises what the variant raises, and BrokenProcessPool where the system ends the process for want of memory.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_here, name, folder, case, device, threads).result()


def _peak_here(name: str, folder: Path, case: Case, device: torch.device, threads: int) -> int:
    disable_progress_bar()
    torch.set_num_threads(threads)
    before = _status("VmRSS") - _code()
    with quiet():
        work = build(name, folder, case, device)
        work.run()
        _forget_peak(device)
        for _ in range(MEMORY_RUNS):
            work.run()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") - _code() - before


def _forget_peak(device: torch.device) -> None:
    """Give back what building took, and begin to look for a new peak, where the system can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _status(field: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most; without Linux at most, which includes building."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
    import resource  # which Windows has not

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _code() -> int:
    """Bytes of libraries in memory: the system reads them in, and drops them, when it likes; 0 without Linux."""
    found, of_library = 0, False
    with suppress(OSError):
        for line in Path("/proc/self/smaps").read_text().splitlines():
            name, *values = line.split()
            if not name.endswith(":"):  # the head of a mapping, with its file
                of_library = ".so" in line
            elif of_library and name == "Rss:":
                found += 1024 * int(values[0])
    return found


def versions() -> dict[str, str | None]:
    """Return the versions of Python, this package and its peers, None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "hf_swin": hf_swin.__version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def computes(dtype: str, device: torch.device) -> bool:
    """Return whether a device has products of a dtype; a CPU may only emulate those of bfloat16."""
    return dtype != "bfloat16" or device.type != "cpu" or any(flag in cpu_flags().split() for flag in BFLOAT16)


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """Return what figures depend on: processor, its instructions, cores, threads, device."""
    info = ""
    with suppress(OSError):
        info = Path("/proc/cpuinfo").read_text()
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", facts.get("Features", "")).split()
    found = {"cpu": facts.get("model name") or platform.processor() or platform.machine()}
    found |= {
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": platform.platform(),
    }
    found |= {"threads": threads, "device": str(device)}
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found
