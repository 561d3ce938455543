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
"""From a file, a folder or a Hub id to what it is: its format, its config, and the moves of its tensors."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PreTrainedConfig

import hf_swin
from hf_swin.errors import UserError
from hf_swin.modeling_names import name_in_memory
from hf_swin.registration import FAMILIES

from . import checkpoints, formats
from .checkpoints import Checkpoint
from .files import LazyTensor, Weights, open_weights
from .keymap import KeysDoNotFit, Move, Rule, plan
from .sizes import head_of


# What may stand before the keys of a model: other parts of such a file are left out.
PARTS = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "module.backbone.")
OURS = "hf_swin"
# Parameters that a body keeps on disk for what it does not do itself: DINOv2 and SimMIM hide patches behind it.
SPARE = ("embeddings.mask_token",)


@dataclass(frozen=True)
class Reading:
    """A source and all that is known of it; its tensors have been looked at, but not read."""

    weights: Weights
    format: str
    config: PreTrainedConfig
    moves: list[Move]
    checkpoint: Checkpoint | None = None
    left_to_user: list[str] = field(default_factory=list)

    def shapes(self) -> dict[str, torch.Tensor]:
        """Returns every tensor under this package's name on disk, without values."""
        return dict(self._run(lambda key: self.weights.tensors[key].meta()))

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields every tensor under this package's name on disk, in the order of `shapes`, read one after the other."""
        return self._run(lambda key: self.weights.tensors[key].read())

    def _run(self, read) -> Iterator[tuple[str, torch.Tensor]]:
        for move in self.moves:
            yield from move.run(read)

    @property
    def model_class(self) -> type:
        """Returns the class of this package that holds the tensors."""
        return class_of(self.config)

    def rules(self) -> dict[str, int]:
        """Returns how many tensors each rule took."""
        counts: dict[str, int] = {}
        for move in self.moves:
            counts[str(move.rule)] = counts.get(str(move.rule), 0) + sum(map(len, move.sources))
        return counts

    def dropped(self) -> list[str]:
        """Returns the keys of the file that have no place in the model."""
        unused = [key for move in self.moves if not move.rule.targets for keys in move.sources for key in keys]
        return [*unused, *self.weights.others]


def class_of(config: PreTrainedConfig) -> type:
    """Returns the class of this package that a config names in `architectures`."""
    return getattr(hf_swin, config.architectures[0])


def read(
    source: str | Path,
    *,
    from_format: str | None = None,
    checkpoint: str | None = None,
    hints: Mapping[str, Any] | None = None,
) -> Reading:
    """Returns what a file, a folder or a Hub id holds.

    `from_format` is for files that two publishers would write alike, `checkpoint` names the published model in the
    catalogue, `hints` are numbers of the config that the weights do not tell. Raises `UserError` for files that are
    damaged, of no known format, of several, or incomplete.
    """
    weights = open_weights(local(source))
    known = checkpoints.find(checkpoint) if checkpoint else _recognised(str(source), weights)
    hints = dict(hints or {})
    kind = (weights.config or {}).get("model_type")
    if kind in FAMILIES:
        return _complete(_own(weights, kind, hints, known))
    weights, name = _detect(weights, from_format, known)
    module = formats.named(name)
    numbers = dict(known.numbers) if known else {}
    if kind and name.startswith("transformers"):
        numbers = {"config": weights.config}
    tensors = {key: _looked_at(key, tensor) for key, tensor in weights.tensors.items()}
    try:
        config = module.config(tensors, {**numbers, **hints})
        moves = plan(tensors, module.rules(config))
    except KeysDoNotFit as error:
        raise UserError(f"{weights.path} looks like {name}, but {error}.") from error
    except KeyError as error:
        raise UserError(f"{weights.path} looks like {name}, but lacks what belongs to {error}.") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{weights.path}: its numbers make no model: {error}.") from error
    return _complete(Reading(weights, name, config, moves, known))


def _looked_at(key: str, tensor: LazyTensor) -> torch.Tensor:
    # The windows of a Swin v2 are told by the values of its saved coordinates.
    return tensor.read() if key.endswith("relative_coords_table") else tensor.meta()


def local(source: str | Path) -> Path:
    """Returns the path of a source, downloaded if it is a Hub id; raises `UserError` for neither."""
    path = Path(source)
    if path.exists() or str(source).count("/") != 1 or path.suffix in (".pth", ".npz", ".onnx", ".safetensors"):
        return path
    try:
        folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "pytorch_model*.bin"]))
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(
            f"{source} is neither a path nor a model that the Hub gives ({str(error).splitlines()[0].rstrip('.')})."
        ) from error


def _recognised(source: str, weights: Weights) -> Checkpoint | None:
    """The published checkpoint that has exactly this name: a file, a Hub id, or timm's entry in a config.json."""
    config = weights.config or {}
    tag = (config.get("pretrained_cfg") or {}).get("tag")
    names = [source, f"timm/{config.get('architecture')}.{tag}", str(config.get("_name_or_path"))]
    return next((found for name in names if (found := checkpoints.named(name))), None)


def _own(weights: Weights, kind: str, hints: Mapping[str, Any], known: Checkpoint | None) -> Reading:
    """A folder of this package: the keys stay, and those of a bare body are given their prefix."""
    config_class = getattr(hf_swin, FAMILIES[kind]["AutoConfig"])
    config = config_class.from_dict({**weights.config, **hints})
    body = class_of(config).base_model_prefix + "."
    apart = ("classifier.", "distillation_classifier.", "decoder.", "hidden_states_norms.")
    with_body = body if not any(key.startswith(body) for key in weights.tensors) else ""
    rules = [Rule(key, key if key.startswith(apart) else with_body + key) for key in weights.tensors]
    return Reading(weights, kind, config, plan({k: t.meta() for k, t in weights.tensors.items()}, rules), known)


def _detect(weights: Weights, from_format: str | None, known: Checkpoint | None) -> tuple[Weights, str]:
    """The format and the part of the file that is of it."""
    if from_format and from_format not in formats.NAMES:
        raise UserError(f"there is no format {from_format!r}: choose one of {', '.join(formats.NAMES)}.")
    candidates = [weights, *(weights.part(prefix) for prefix in PARTS)]
    for part in candidates:
        fits = formats.fitting(part.tensors, part.container)
        wanted = from_format or (known.format if known else None)
        if wanted and part.tensors and _bears(part, wanted):
            return part, wanted
        if len(fits) == 1 and not from_format:
            return part, fits[0]
        if fits and not from_format:
            raise UserError(
                f"{weights.path} could be {' or '.join(fits)}, whose files are alike: say which with --from."
            )
    reason = f"is not {from_format}" if from_format else "is of no format that this package knows"
    keys = ", ".join(list(weights.tensors)[:6])
    raise UserError(f"{weights.path} {reason}; its {len(weights.tensors)} keys begin with {keys}.")


def _bears(part: Weights, name: str) -> bool:
    """Whether keys and shapes are those of a format; a wish for a format is not held up by the container."""
    signature = formats.named(name).SIGNATURE
    return signature.fits(part.tensors, signature.container or part.container)


def _complete(reading: Reading) -> Reading:
    """Names the class, and checks that it has every parameter that was found, in that shape, and no other."""
    shapes, config = reading.shapes(), reading.config
    if reading.format not in FAMILIES:
        prefix = FAMILIES[config.model_type]["AutoModel"].removesuffix("Model")
        backbone = (config.architectures or [""])[0].endswith("Backbone")
        config.architectures = [prefix + ("Backbone" if backbone else head_of(shapes))]
    wanted = expected(config)
    found = {name_in_memory(key, config.model_type): (key, tensor) for key, tensor in shapes.items()}
    body = class_of(config).base_model_prefix + "."
    if not any(name.startswith(body) for name in wanted):
        found = {name.removeprefix(body): pair for name, pair in found.items()}
    wrong = [
        f"{key} is {list(tensor.shape)} and its config wants {list(wanted[name].shape)}"
        for name, (key, tensor) in found.items()
        if name in wanted and wanted[name].shape != tensor.shape
    ]
    missing = [name for name in wanted if name not in found]
    if wrong:
        raise UserError(f"{reading.weights.path}: {wrong[0]}; see --hint and --checkpoint.")
    if missing:
        raise UserError(f"{reading.weights.path} is incomplete: {', '.join(missing[:6])} missing.")
    return reading


def expected(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Returns the parameters of the class that a config names, in memory's names and without values."""
    with torch.device("meta"):
        return class_of(config)(config).state_dict()


def parse_hint(text: str) -> tuple[str, Any]:
    """Returns name and value of `NAME=VALUE`, the value as JSON if it is some; raises `UserError` for other texts."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"--hint {text}: write it as NAME=VALUE, such as num_attention_heads=6.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
