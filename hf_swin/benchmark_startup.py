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
"""What `hf-swin bench` measures beside cases: how fast a library starts, and what an image of another size costs."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import AutoModelForImageClassification

import hf_swin

from .benchmark_measures import quiet, timed


# Seconds for the import and for the checkpoint, in a fresh process.
START = """
import time
begin = time.perf_counter()
{imports}
imported = time.perf_counter()
AutoModelForImageClassification.from_pretrained({folder!r})
print([imported - begin, time.perf_counter() - imported])
"""
AUTO = "from transformers import AutoModelForImageClassification"
IMPORTS = {"hf_swin": f"import hf_swin; {AUTO}", "transformers": AUTO}
FOLDERS = {"hf_swin": "ours", "transformers": "stock"}
# Sides in pixels, met for the first time after 224: of whole windows, of others, and a rectangle.
SECOND_SIZES = ((256, 256), (320, 320), (224, 384))
# The sizes that come in turn to a model compiled with dynamic=True, and how often.
MIXED_SIZES, TURNS = ((224, 224), (320, 320), (256, 256), (448, 448), (288, 352)), 2


def start_up(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return seconds that `import` and `from_pretrained` of the same weights take, ours and transformers' by turns."""
    found = {name: {"import": [], "from_pretrained": []} for name in IMPORTS}
    for number in range(rounds):
        for name in list(IMPORTS)[:: -1 if number % 2 else 1]:
            code = START.format(imports=IMPORTS[name], folder=str(folder / FOLDERS[name]))
            out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            for part, seconds in zip(found[name].values(), json.loads(out), strict=True):
                part.append(seconds)
    return found


def second_sizes(folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Return for each new image size the time of the first call, in units of the calls after it."""
    model = AutoModelForImageClassification.from_pretrained(folder / "ours").to(device).eval()
    found = []
    with torch.inference_mode():
        model(torch.randn(1, 3, 224, 224, device=device))
        for size in SECOND_SIZES:
            pixels = torch.randn(1, 3, *size, device=device)
            call = _caller(model, pixels)
            first, *later = (timed(call, device)[0] for _ in range(6))
            found.append({"size": size, "first_call": first, "later_calls": later})
    return found


def mixed_sizes(folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Return how many graphs have been traced after each size, and the seconds of the call, under dynamic=True.

    What is traced, and when again, does not depend on who compiles it; a backend that compiles nothing is done sooner.
    The model is an optimised one: on a CPU its windows are an operator. Cut by PyTorch they are reshaped four times a
    block, and PyTorch thinks for minutes about each size that follows from two unknown ones.
    """
    torch.compiler.reset()
    counters.clear()
    model = hf_swin.optimize(AutoModelForImageClassification.from_pretrained(folder / "ours").to(device))
    compiled = torch.compile(model, dynamic=True, backend="eager")
    found = []
    with torch.inference_mode(), quiet():
        for size in MIXED_SIZES * TURNS:
            call = _caller(compiled, torch.randn(1, 3, *size, device=device))
            found.append(
                {"size": size, "seconds": timed(call, device)[0], "graphs": counters["stats"]["unique_graphs"]}
            )
    torch.compiler.reset()
    return found


def _caller(model: Callable, pixels: torch.Tensor) -> Callable[[], Any]:
    return lambda: model(pixels)


def recompilations(mixed: Sequence[dict[str, Any]]) -> int:
    """Return how many graphs were compiled for sizes that had been met before."""
    return mixed[-1]["graphs"] - mixed[len(mixed) // TURNS - 1]["graphs"]
