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
"""Files of weights: safetensors, `.pth`, `.npz` and ONNX, read one tensor at a time; no code in them is run."""

import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from hf_swin.errors import UserError, one_line

from . import pickles


INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: what is known without reading it, and how to read it."""

    shape: torch.Size
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    def meta(self) -> torch.Tensor:
        """Returns a tensor of this shape and type without values."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


@dataclass(frozen=True)
class Weights:
    """The tensors of a file or folder, the key of the container they lay under, and the folder's config.json."""

    path: Path
    tensors: dict[str, LazyTensor]
    container: str = ""
    config: dict[str, Any] | None = None
    # Keys outside the container or the part that was asked for.
    others: list[str] = field(default_factory=list)

    def part(self, prefix: str) -> "Weights":
        """Returns the tensors whose keys begin with a prefix, without it."""
        inside = {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}
        outside = [key for key in self.tensors if not key.startswith(prefix)]
        return Weights(self.path, inside, self.container, self.config, [*self.others, *outside])


def open_weights(path: Path) -> Weights:
    """Opens a file, or a folder with one in the layout of the Hub; raises UserError for what is no file of weights."""
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a file of weights, a folder, or the Hub id of a model.")
    readers = {".safetensors": _safetensors, ".npz": _npz, ".onnx": _onnx, ".pth": _pickled}
    with _readable(path):
        weights = readers[_kind(path)](path)
    if not weights.tensors:
        raise UserError(f"{path} holds no tensors.")
    return weights


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except Exception as error:  # whatever a library stumbles over in a broken file
        raise UserError(f"{path} is damaged or no file of weights ({first_sentence(error)}).") from error


def first_sentence(error: Exception) -> str:
    """Returns the first sentence of a library's message."""
    text = one_line(error, None) or type(error).__name__
    return text.split(". ")[0].rstrip(".")[:160]


def _kind(path: Path) -> str:
    """What a file is by its first bytes, as the ending that it should have; its own ending decides on the rest."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError(f"{path} is empty: download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS in place of the weights: run `git lfs pull` or download them.")
    if head[6:9] == b"\0\0{":  # the length of a header, and the header
        return ".safetensors"
    if head.lstrip()[:1] in (b"<", b"{"):
        raise UserError(f"{path} is a page of text in place of the weights: download it again.")
    if head.startswith(b"PK\3\4"):
        return _kind_of_archive(path)
    return path.suffix if path.suffix in (".safetensors", ".npz", ".onnx") else ".pth"


def _kind_of_archive(path: Path) -> str:
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is cut off: download it again.")
    with zipfile.ZipFile(path) as archive:
        names, unpacked = archive.namelist(), sum(member.file_size for member in archive.infolist())
    if unpacked > max(20 * size, 2**30):
        raise UserError(f"{path} is damaged: it has {size:,} bytes and claims to unpack to {unpacked:,}.")
    if any(name.endswith("/data.pkl") for name in names):
        if path.suffix == ".safetensors":  # torch goes by this ending
            raise UserError(f"{path} is a file of torch.save under another ending: rename it to .pth.")
        return ".pth"
    if all(name.endswith(".npy") for name in names):
        return ".npz"
    raise UserError(f"{path} is an archive of other files: unpack it first.")


def _open_folder(folder: Path) -> Weights:
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder} holds none of {', '.join(WEIGHTS)}.")
    files = [found]
    if found.suffix == ".json":
        names = _json(found).get("weight_map")
        if not isinstance(names, dict) or any(Path(str(name)).name != name for name in names.values()):
            raise UserError(f"{found} is damaged: it does not say which file holds which tensor.")
        files = [folder / name for name in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{folder} is incomplete: {', '.join(missing)} missing.")
    opened = [open_weights(file) for file in files]
    tensors = {key: tensor for weights in opened for key, tensor in weights.tensors.items()}
    config = folder / "config.json"
    return Weights(folder, tensors, opened[0].container, _json(config) if config.is_file() else None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({first_sentence(error)}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it has no fields.")
    return content


def _safetensors(path: Path) -> Weights:
    with safe_open(path, "pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        shapes = {key: torch.Size(part.get_shape()) for key, part in slices.items()}
        types = {key: part.get_dtype() for key, part in slices.items()}
    unknown = next((key for key, code in types.items() if code not in _TYPES), None)
    if unknown:
        raise UserError(f"{path}: {unknown} is stored as {types[unknown]}, with which no model here computes.")

    def read(key: str) -> torch.Tensor:
        # Opened for each tensor, so that the pages of one are given back before the next is read.
        with _readable(path), safe_open(path, "pt") as file:
            return file.get_tensor(key)

    return Weights(
        path, {key: LazyTensor(shape, _TYPES[types[key]], partial(read, key)) for key, shape in shapes.items()}
    )


_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _TYPES.items()}


def _pickled(path: Path) -> Weights:
    state, size = pickles.State(path), path.stat().st_size
    promised = sum(tensor.nbytes for tensor in state.tensors.values())
    if promised > 4 * size:
        raise UserError(f"{path} is damaged: it promises {promised:,} bytes of weights and has {size:,}.")

    def read(key: str) -> torch.Tensor:
        with _readable(path):
            return state.read(key)

    tensors = {key: LazyTensor(t.shape, t.dtype, partial(read, key)) for key, t in state.tensors.items()}
    return Weights(path, tensors, state.container, others=state.others)


def _npz(path: Path) -> Weights:
    """Google's files: one array for each key, `params/` or `opt/target/` before it where more was saved."""
    with zipfile.ZipFile(path) as archive:
        headers = {member.filename.removesuffix(".npy"): _header(archive, member) for member in archive.infolist()}

    def read(key: str) -> torch.Tensor:
        with _readable(path), np.load(path, allow_pickle=False) as archive:
            array = archive[key]
            # numpy has no bfloat16: JAX saves two bytes without a meaning.
            if array.dtype.kind == "V":
                return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
            return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=False))

    weights = Weights(path, {key: LazyTensor(*header, partial(read, key)) for key, header in headers.items()})
    for prefix in ("opt/target/", "params/img/"):
        if any(key.startswith(prefix) for key in headers):
            weights = weights.part(prefix)
            if prefix == "params/img/":
                renamed = {f"params/{key}": tensor for key, tensor in weights.tensors.items()}
                weights = Weights(path, renamed, others=weights.others)
    return weights


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[torch.Size, torch.dtype]:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, _, dtype = read(file)
        rest = member.file_size - file.tell()
    if dtype.hasobject:
        raise UserError(f"{archive.filename}: {member.filename} holds Python objects, which run code: none was run.")
    if rest != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{member.filename} has {rest} bytes for an array of {shape}")
    if dtype.kind == "V" and dtype.itemsize == 2:
        return torch.Size(shape), torch.bfloat16
    return torch.Size(shape), torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype


def _onnx(path: Path) -> Weights:
    from .onnx import initialisers

    tensors = initialisers(path)
    return Weights(path, {key: LazyTensor(t.shape, t.dtype, lambda t=t: t) for key, t in tensors.items()})


def write_safetensors(
    path: Path, shapes: Mapping[str, torch.Tensor], tensors: Iterable[tuple[str, torch.Tensor]]
) -> None:
    """Writes tensors as they come, so that only one is in memory; `shapes` (meta) has all of them, in this order.

    The library's own writer wants all of them at once.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, meta in shapes.items():
        header[key] = {
            "dtype": _CODES[meta.dtype],
            "shape": list(meta.shape),
            "data_offsets": [end, end + meta.numel() * meta.element_size()],
        }
        end = header[key]["data_offsets"][1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (key, meta), (name, tensor) in zip(shapes.items(), tensors, strict=True):
            if key != name or meta.shape != tensor.shape or meta.dtype != tensor.dtype:
                raise RuntimeError(f"{name} {tuple(tensor.shape)} came where {key} {tuple(meta.shape)} was expected")
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy())  # tofile forgets that a disk is full
    partial.replace(path)


def write(path: Path, tensors: dict[str, torch.Tensor], container: str = "") -> None:
    """Writes a file of another publisher, by its ending: safetensors, `.pth` under the key `container`, or `.npz`."""
    partial = path.with_name("." + path.name)
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        write_safetensors(path, tensors, tensors.items())
        return
    if path.suffix == ".npz":
        np.savez(partial, **{key: tensor.float().numpy() for key, tensor in tensors.items()})
    else:
        tensors = {key: tensor.clone() for key, tensor in tensors.items()}  # a view would save its whole storage
        torch.save({container: tensors} if container else tensors, partial)
    partial.replace(path)
