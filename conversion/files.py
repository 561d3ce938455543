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
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from hf_swin.errors import UserError


# Keys of a `.pth` under which publishers keep the weights, the first that is there; "" is the file itself.
CONTAINERS = ("model", "state_dict", "teacher", "params")
# Plain records that publishers save beside the weights. Here they become empty ones: nothing of the file is executed.
HARMLESS = (
    "argparse.Namespace",
    "yacs.config.CfgNode",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "omegaconf.dictconfig.DictConfig",
)
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
    readers = {".safetensors": _safetensors, ".npz": _npz, ".onnx": _onnx}
    read = readers.get(path.suffix, _pickled)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: download it again.")
    try:
        weights = read(path)
    except UserError:
        raise
    except (SafetensorError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError, struct.error) as error:
        raise UserError(f"{path} is damaged or no {path.suffix or 'weights'} file ({_first_line(error)}).") from error
    if not weights.tensors:
        raise UserError(f"{path} holds no tensors.")
    return weights


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _open_folder(folder: Path) -> Weights:
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder} holds none of {', '.join(WEIGHTS)}.")
    files = [found]
    if found.suffix == ".json":
        files = [folder / name for name in sorted(set(_json(found)["weight_map"].values()))]
    opened = [open_weights(file) for file in files]
    tensors = {key: tensor for weights in opened for key, tensor in weights.tensors.items()}
    config = folder / "config.json"
    return Weights(folder, tensors, opened[0].container, _json(config) if config.is_file() else None)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({_first_line(error)}).") from error


def _safetensors(path: Path) -> Weights:
    with safe_open(path, "pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        shapes = {key: torch.Size(part.get_shape()) for key, part in slices.items()}
        types = {key: _TYPES[part.get_dtype()] for key, part in slices.items()}

    def reader(key: str) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            # Opened for each tensor, so that the pages of one are given back before the next is read.
            with safe_open(path, "pt") as file:
                return file.get_tensor(key)

        return read

    return Weights(path, {key: LazyTensor(shape, types[key], reader(key)) for key, shape in shapes.items()})


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
    content = _unpickle(path)
    container = next((key for key in CONTAINERS if isinstance(content, dict) and _is_state(content.get(key))), "")
    state = content[container] if container else content
    if not _is_state(state):
        raise UserError(f"{path} holds no dictionary of tensors, at its top or under {', '.join(CONTAINERS)}.")
    size = sum(tensor.nbytes for tensor in state.values())
    if len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) and size > 4 * path.stat().st_size:
        raise UserError(f"{path} is damaged: it promises {size:,} bytes of weights and has {path.stat().st_size:,}.")
    tensors = {key: LazyTensor(t.shape, t.dtype, lambda t=t: t.detach()) for key, t in state.items()}
    others = [key for key in content if key != container] if container else []
    return Weights(path, tensors, container, others=others)


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(torch.is_tensor, value.values()))


def _unpickle(path: Path) -> Any:
    inert = [(type(name.rsplit(".")[-1], (dict,), {}), name) for name in HARMLESS]
    numbers = [np.dtype, *{type(np.dtype(kind)) for kind in "fdilq?"}]
    scalars = [(np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([*inert, *numbers, *scalars]):
        try:
            zipped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            unsafe = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
            reason = (unsafe or [_first_line(error)])[0].rstrip(".")
            raise UserError(
                f"{path} is no plain file of weights; it would run code or it is damaged, and nothing of it was run "
                f"({reason[:160]})."
            ) from error
        except (RuntimeError, AttributeError, TypeError, IndexError, AssertionError) as error:
            raise UserError(f"{path} is damaged or no file of weights ({_first_line(error)}).") from error


def _npz(path: Path) -> Weights:
    """Google's files: one array for each key, `params/` or `opt/target/` before it where more was saved."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
                shape, _, dtype = read(member)
            if dtype.hasobject:
                raise UserError(f"{path}: {name} holds Python objects, which would run code; nothing of it was run.")
            headers[name.removesuffix(".npy")] = (torch.Size(shape), _torch_type(dtype))

    def reader(key: str) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            with np.load(path, allow_pickle=False) as archive:
                array = archive[key]
            # numpy has no bfloat16: JAX saves two bytes without a meaning.
            if array.dtype.kind == "V":
                return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
            return torch.from_numpy(np.ascontiguousarray(array))

        return read

    weights = Weights(path, {key: LazyTensor(*header, reader(key)) for key, header in headers.items()})
    for prefix in ("opt/target/", "params/img/"):
        if any(key.startswith(prefix) for key in headers):
            weights = weights.part(prefix)
            if prefix == "params/img/":
                renamed = {f"params/{key}": tensor for key, tensor in weights.tensors.items()}
                weights = Weights(path, renamed, others=weights.others)
    return weights


def _torch_type(dtype: np.dtype) -> torch.dtype:
    return torch.bfloat16 if dtype.kind == "V" else torch.from_numpy(np.empty(0, dtype)).dtype


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
            tensor.contiguous().flatten().view(torch.uint8).numpy().tofile(file)
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
