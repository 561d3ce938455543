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
"""Several processes, as `accelerate launch` starts them, that do one job together."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


# Seconds that the first process gets to say what is wrong; its end is that of the others.
HEAD_START = 30.0


def on_cpu() -> bool:
    """Say whether to work without an accelerator: there is none, or `accelerate launch --cpu` said so."""
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()


def this_process() -> PartialState:
    """Return which of how many processes this is, and join the others if there are any."""
    return PartialState(cpu=on_cpu())


@contextmanager
def one_complaint() -> Iterator[None]:
    """Let the first process alone speak of what goes wrong in all of them, or in itself, which ends the others."""
    try:
        yield
    except Exception:
        if not this_process().is_main_process:
            time.sleep(HEAD_START)
        raise
