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
"""The kernels of this package for a CPU: C++ files without dependencies, compiled when they are first wanted.

That takes a few seconds; what was made is kept in the cache of Hugging Face.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import constants
from transformers.utils import logging


# The file that is compiled, and those that it is made of.
FILES = ("kernels.cpp", "vectors.h", "linear.h", "window_attention.h", "swin_block.h")
SOURCES = [Path(__file__).with_name(name) for name in FILES]
# What -ffast-math allows, but for infinities; that flag itself would change how the whole process treats tiny numbers.
LOOSE = ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"]
FLAGS = ["-O3", "-march=native", *LOOSE, "-std=c++17", "-shared", "-fPIC"]
# What the functions are called for each type of numbers.
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

logger = logging.get_logger(__name__)


def cpu_flags() -> str:
    """Returns what this CPU can do, in Linux's own words; a compiled file is good for equal ones only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


@lru_cache
def library() -> ctypes.CDLL | None:
    """Returns the compiled kernels, or None, with a warning, where there is no C++ compiler that can make them."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]  # Apple's compiler comes without it
    known = "\n".join(
        [*(path.read_text() for path in SOURCES), str(compiler), *FLAGS, *openmp, cpu_flags(), platform.platform()]
    )
    folder = Path(constants.HF_HOME) / "hf_swin" / "kernels"
    built = folder / f"kernels-{hashlib.sha256(known.encode()).hexdigest()[:16]}.so"
    try:
        if not built.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                partial = Path(scratch) / built.name
                command = [compiler or "g++", *FLAGS, *openmp, str(SOURCES[0]), "-o", str(partial)]
                subprocess.run(command, check=True, capture_output=True, text=True)
                partial.replace(built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        logger.warning(f"The kernels could not be compiled, so PyTorch's own take their place: {reason.strip()}")
        return None


@torch.compiler.assume_constant_result
def compiled() -> bool:
    """Returns whether there are kernels; one question, to which a tracing compiler need not know how it is answered."""
    return library() is not None


def prepared(
    name: str, dtype: torch.dtype, sizes: list[int], tensors: Sequence[torch.Tensor | None] = ()
) -> Callable[..., None]:
    """Returns a function of the library for a type of numbers, given what stays: a row of integers, memory of tensors.

    It is called with what changes: integers, and tensors, of which the function takes the memory.
    """
    function = getattr(library(), f"{name}_{DTYPES[dtype]}")
    places = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    row = (ctypes.c_int64 * (len(sizes) + len(places)))(*sizes, *places)

    def run(*changing: int | torch.Tensor | None) -> None:
        function(row, *[ctypes.c_void_p(x.data_ptr()) if isinstance(x, torch.Tensor) else x for x in changing])

    run.row, run.holds = row, tensors  # held, or their memory would be given to others
    return run


def chained(name: str, dtype: torch.dtype, runs: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """Returns a function of the library that does what several prepared ones do, one after the other."""
    run = prepared(name, dtype, [len(runs), *(ctypes.addressof(run.row) for run in runs)])
    run.holds = runs
    return run


def integer(name: str) -> int:
    """Returns a constant of the library."""
    return ctypes.c_int64.in_dll(library(), name).value
