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
"""Evidence: an input and the answer expected to it, stored beside the weights, so that a download can be checked."""

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

import hf_swin

from .card import read_json
from .errors import UserError, one_line
from .hub import hub_errors


FILE = "evidence.safetensors"


def pixels_of(config) -> torch.Tensor:
    """Return two images (2, channels, height, width) at the model's own size: noise, and waves, smooth as a picture."""
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    noise = torch.randn(config.num_channels, height, width, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = [torch.sin((3 + channel) * x + channel) * torch.cos((5 - channel) * y) for channel in range(len(noise))]
    return torch.stack([noise, torch.stack(waves)])


@torch.inference_mode()
def answers_of(model: PreTrainedModel, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what a model answers, by name; a masked-image model sees every second patch."""
    arguments = {}
    if type(model).__name__.endswith("ForMaskedImageModeling"):
        patch = model.config.patch_size
        patch = (patch, patch) if isinstance(patch, int) else patch
        grid = [-(-side // step) for side, step in zip(pixel_values.shape[-2:], patch, strict=True)]
        arguments["bool_masked_pos"] = (torch.arange(math.prod(grid)) % 2).bool().expand(len(pixel_values), -1)
    outputs = model.eval()(pixel_values, **arguments)
    found = {}
    for name in ("logits", "reconstruction", "last_hidden_state", "pooler_output"):
        if outputs.get(name) is not None:
            found[name] = outputs[name]
    for stage, feature_map in zip(getattr(model, "out_features", ()), outputs.get("feature_maps") or (), strict=False):
        found[stage] = feature_map
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


def write_evidence(model: PreTrainedModel, folder: Path) -> Path:
    """Write `evidence.safetensors`: `pixel_values`, `expected` (the main answer) and `expected.NAME` for every other.

    Give the model in float32, whatever its weights are stored in: half precision is not the same on two machines.
    """
    pixel_values = pixels_of(model.config)
    answers = answers_of(model, pixel_values)
    main, *others = answers
    tensors = {"pixel_values": pixel_values, "expected": answers[main]}
    tensors |= {f"expected.{name}": answers[name] for name in others}
    facts = {
        "class": type(model).__name__,
        "answer": main,
        "dtype": str(model.dtype).removeprefix("torch."),
        "hf_swin": hf_swin.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    partial = folder / f"{FILE}.partial"
    # One entry, because safetensors writes several in any order, and equal evidence shall be equal bytes.
    save_file(tensors, partial, metadata={"evidence": json.dumps(facts)})
    return partial.replace(folder / FILE)


def check_evidence(folder_or_repo: str | Path) -> float:
    """Return the largest difference between what a model answers and what its evidence expects, relative to the latter.

    Infinite if the answer is not finite. Reads a folder or downloads a repository; runs no code from either. Raises
    `UserError` if there is no evidence, or of another shape.
    """
    folder = Path(folder_or_repo)
    if not folder.is_dir():
        with hub_errors(str(folder_or_repo)):
            folder = Path(snapshot_download(str(folder_or_repo), allow_patterns=["*.json", "*.safetensors"]))
    pixel_values, expected = _read(folder / FILE)
    answers = answers_of(open_model(folder), pixel_values)
    worst = 0.0
    for name, wanted in expected.items():
        found = answers.get(name)
        if found is None or found.shape != wanted.shape:
            shape = None if found is None else tuple(found.shape)
            raise UserError(f"{folder_or_repo}: {name} is {shape}, but its evidence has {tuple(wanted.shape)}.")
        error = ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)).item()
        worst = max(worst, error) if math.isfinite(error) else math.inf
    return worst


def _read(path: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The input, and the expected answers by name."""
    if not path.exists():
        raise UserError(f"{path.parent} has no {FILE}: `hf-swin publish` writes it.")
    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            main = json.loads(file.metadata()["evidence"])["answer"]
        pixel_values, expected = tensors.pop("pixel_values"), {main: tensors.pop("expected")}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): download it again.") from error
    return pixel_values, expected | {key.removeprefix("expected."): tensor for key, tensor in tensors.items()}


def open_model(folder: Path, cls: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    """Open a folder in float32, in `cls` or the class that it names, of this package or of transformers.

    Runs no code from the folder. Raises `UserError` if it holds no model, or one whose tensors are not those of `cls`.
    """
    cls = cls or _named_class(folder)
    try:
        model, info = cls.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder} does not open as {cls.__name__}: {one_line(error)}") from error
    for what, keys in (("lacks", info["missing_keys"]), ("has more than", info["unexpected_keys"])):
        if keys:
            names = ", ".join(sorted(keys)[:3])
            raise UserError(f"{folder} {what} the tensors of {cls.__name__}: {len(keys)}, such as {names}.")
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of a saved model; raises `UserError` if there is none, or not of a model."""
    try:
        config = read_json(folder / "config.json")
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is damaged ({error}).") from error
    if not config.get("architectures"):
        raise UserError(f"{folder} holds no model: a saved one has a config.json that names its architecture.")
    return config


def _named_class(folder: Path) -> type[PreTrainedModel]:
    name = read_config(folder)["architectures"][0]
    cls = getattr(hf_swin, name, None) or getattr(transformers, name, None)
    if cls is None:
        raise UserError(f"{folder} holds a {name}, which neither hf_swin nor transformers has.")
    return cls
