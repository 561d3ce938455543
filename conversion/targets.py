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
"""From a model of this package to a file of another publisher, or to the reason why that cannot hold it."""

import copy
from pathlib import Path
from types import ModuleType

import torch
from transformers import PreTrainedConfig

from hf_swin.errors import UserError

from . import formats
from .files import write
from .keymap import KeysDoNotFit, convert, inverted, owners
from .limits import holds
from .preprocessing import write_processor
from .reading import Reading


# What a body keeps on disk for training and most formats do not.
SPARE = ("vit.embeddings.mask_token",)
# Publishers with one layout for a model; facebook's are chosen by name.
PUBLISHERS = ("transformers", "timm", "torchvision", "microsoft", "openmmlab", "google")


def write_as(reading: Reading, folder: Path, to: str) -> list[str]:
    """Writes a reading as a format, or as the first format of a publisher that holds it; returns notes for the user.

    Raises `UserError` with the reasons where none does.
    """
    reasons = []
    tensors = dict(reading.tensors())
    for name in _candidates(to, reading.config.model_type):
        module = formats.named(name)
        config = _config_for(module, reading.config)
        try:
            theirs, notes = moved(module, config, tensors)
        except ValueError as error:
            reasons.append(f"{name}: {error}")
            continue
        write(folder / module.FILE, theirs, module.CONTAINER)
        if hasattr(module, "stock_config"):
            module.stock_config(config, theirs).save_pretrained(folder)
            notes += [*_positions(config), *write_processor(reading, folder)]
        return notes
    raise UserError(f"{reading.weights.path} cannot be written as {to}: {'; '.join(reasons)}.")


def _positions(config: PreTrainedConfig) -> list[str]:
    """A note where the stock class brings positions to another grid by another rule than the model's publisher."""
    stock = "bicubic_antialias" if getattr(config, "num_register_tokens", 0) else "bicubic"
    if config.model_type != "hf_vit" or config.position_resizing == stock:
        return []
    return [
        f"at other image sizes stock classes resize positions by {stock}, and this model by {config.position_resizing}"
    ]


def _candidates(to: str, family: str) -> list[str]:
    names = [name for name in formats.NAMES if name == to]
    if to in PUBLISHERS:  # whose runtime layouts are written where they are asked for by name
        names = [name for name in formats.NAMES if name.startswith(to + "_") and not name.endswith("_runtime")]
    if not names:
        choices = ", ".join(["hf_swin", *PUBLISHERS, *formats.NAMES])
        raise UserError(f"there is no format {to!r}: choose one of {choices}.")
    of_family = [name for name in names if family == formats.named(name).FAMILY]
    if not of_family:
        raise UserError(f"{to} is a format of {formats.named(names[0]).FAMILY} models, and this is a {family}.")
    return of_family


def _config_for(module: ModuleType, config: PreTrainedConfig) -> PreTrainedConfig:
    """A config that names the stock class where a format is one of transformers: that decides on its prefix."""
    config = copy.deepcopy(config)
    if hasattr(module, "stock_config"):
        ends = ("ForImageClassification", "ForMaskedImageModeling", "Backbone", "Model")
        head = next(end for end in ends if config.architectures[0].endswith(end))
        name = module.architecture(config, head) if hasattr(module, "architecture") else module.STOCK + head
        config.architectures = [name]
    return config


def moved(
    module: ModuleType, config: PreTrainedConfig, tensors: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Returns all tensors under a format's names, and notes; raises ValueError for what it cannot hold."""
    holds(config, module.HOLDS)
    if hasattr(module, "check"):
        module.check(config)
    rules = inverted(module.rules(config))
    spare = [key for key in SPARE if key in tensors and not owners([key], rules)[key]]
    kept = {key: tensor for key, tensor in tensors.items() if key not in spare}
    try:
        theirs = convert(kept, rules)
    except KeysDoNotFit as error:
        raise ValueError(str(error).replace("no rule knows", "it has no place for")) from error
    buffers = module.buffers(config) if hasattr(module, "buffers") else {}
    return {**buffers, **theirs}, [f"{key} was left out: this format has no place for it" for key in spare]
