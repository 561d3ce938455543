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
"""What `torch.save` wrote: tensors are made, every other object in it becomes an empty record, and no code is run."""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hf_swin.errors import UserError


# Keys of a `.pth` under which publishers keep the weights, the first that is there; "" is the file itself.
CONTAINERS = ("model", "state_dict", "teacher", "params")
# What publishers save beside the weights: records with keys, which become empty dictionaries, …
MAPPINGS = (
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "omegaconf.dictconfig.DictConfig",
    "collections.defaultdict",
)
# … and all others, which become nothing.
RECORDS = (
    "argparse.Namespace",
    "mmengine.logging.history_buffer.HistoryBuffer",
    *(f"pathlib.{kind}{system}Path" for kind in ("", "Pure") for system in ("Posix", "Windows")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "builtins.list", "builtins.dict", "builtins.int", "builtins.float"),
)
# Bytes that are read before the pages of a file are given back.
SPAN = 2**28


def _empty_dictionary(cls: type, *args: Any, **kwargs: Any) -> OrderedDict:
    # torch fills none but plain dictionaries.
    return OrderedDict()


def _nothing(cls: type, *args: Any, **kwargs: Any) -> Any:
    return object.__new__(cls)


def _stand_ins() -> list[tuple[type, str]]:
    made = [(type("Mapping", (), {"__new__": _empty_dictionary}), name) for name in MAPPINGS]
    blank = {"__new__": _nothing, "__setstate__": lambda self, state: None}
    return made + [(type("Record", (), blank), name) for name in RECORDS]


def unpickled(path: Path) -> Any:
    """Returns the content of a file; raises UserError where it would run code.

    The tensors of today's files are read when they are looked at, those of files before torch 1.6 at once.
    """
    with torch.serialization.safe_globals(_stand_ins()):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            if not found:
                raise UserError(f"{path} is damaged, or nothing that torch.save wrote: download it again.") from error
            raise UserError(
                f"{path} would run code when it is opened ({found[1]}), and nothing of it was run: ask its publisher "
                "for a file of tensors alone."
            ) from error


def container_of(content: Any) -> str | None:
    """Returns the key under which a file keeps its weights, "" for its top, None where it has none."""
    if not isinstance(content, Mapping):
        return None
    inside = (key for key in CONTAINERS if _is_state(content.get(key)))
    return next(inside, "" if _is_state(content) else None)


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and _is_plain(tensor) for key, tensor in value.items())
    )


def _is_plain(value: Any) -> bool:
    return torch.is_tensor(value) and value.layout == torch.strided and not value.is_quantized


class State:
    """The weights of a file, read one after the other: pages that were read are given back by opening it anew."""

    def __init__(self, path: Path):
        self.path = path
        content = unpickled(path)
        self.container = container_of(content)
        if self.container is None:
            raise UserError(f"{path} holds no dictionary of tensors, at its top or under {', '.join(CONTAINERS)}.")
        self.tensors: Mapping[str, torch.Tensor] = content[self.container] if self.container else content
        self.others = [str(key) for key in content if key != self.container] if self.container else []
        self.taken = 0
        self.pages = zipfile.is_zipfile(path)

    def read(self, key: str) -> torch.Tensor:
        """Returns a tensor of the file."""
        if self.pages and self.taken > SPAN:
            self.tensors, self.taken = State(self.path).tensors, 0
        tensor = self.tensors[key].detach()
        self.taken += tensor.nbytes
        return tensor
