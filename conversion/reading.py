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
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from transformers import PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion

import hf_swin
from hf_swin.configuration_shared import pair
from hf_swin.errors import UserError, one_line
from hf_swin.modeling_names import name_in_memory
from hf_swin.registration import FAMILIES

from . import checkpoints, formats
from .checkpoints import Checkpoint
from .detection import detect
from .files import LazyTensor, Weights, first_sentence, open_weights
from .keymap import KeysDoNotFit, Move, Rule, plan
from .sizes import head_of


OURS = "hf_swin"
# No Hub id ends so.
ENDINGS = (".pth", ".pt", ".bin", ".npz", ".onnx", ".safetensors")
# Parameters that a body keeps on disk for what it does not do itself: DINOv2 and SimMIM hide patches behind it.
SPARE = (r"embeddings\.mask_token",)


@dataclass(frozen=True)
class Reading:
    """A source and all that is known of it; its tensors have been looked at, but not read."""

    weights: Weights
    format: str
    config: PreTrainedConfig
    moves: list[Move]
    checkpoint: Checkpoint | None = None
    like: Checkpoint | None = None  # of the same architecture, with other labels
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
            rule = "names of this package" if self.format in FAMILIES else str(move.rule)
            counts[rule] = counts.get(rule, 0) + sum(map(len, move.sources))
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
    weights, hints = open_weights(local(source)), dict(hints or {})
    if checkpoint:
        known = checkpoints.find(checkpoint)
        try:
            return _identified(_read(weights, from_format, known, hints), known)
        except UserError as error:
            raise UserError(f"{str(error).removesuffix('.')}; is it {known.name}?") from error
    known = _recognised(str(source), weights)
    if known is None:
        return _read(weights, from_format, None, hints)
    with suppress(UserError):  # a file may have any name
        reading = _read(weights, from_format, known, hints)
        if sizes_and_labels(reading.config) == sizes_and_labels(known) and _same_images(reading.config, known):
            return replace(reading, checkpoint=known)
    note = f"it is called {known.name} and has other sizes or labels: nothing was taken from the catalogue"
    reading = _read(weights, from_format, None, hints)
    return replace(reading, left_to_user=[*reading.left_to_user, note])


def _same_images(config: PreTrainedConfig, known: Checkpoint) -> bool:
    return pair(config.image_size) == pair(known.numbers["image_size"])


def sizes_and_labels(model: PreTrainedConfig | Checkpoint) -> tuple[Any, ...]:
    """Returns width, depth, patch size and number of labels (0 without a classifier) of a config or a checkpoint."""
    if isinstance(model, Checkpoint):
        return model.width, model.depth, model.patch_size, model.num_labels
    width = getattr(model, "embed_dim", None) or model.hidden_size
    depth = tuple(model.depths) if hasattr(model, "depths") else model.num_hidden_layers
    labels = model.num_labels if model.architectures[0].endswith("ForImageClassification") else 0
    return width, depth, pair(model.patch_size)[0], labels


def _identified(reading: Reading, known: Checkpoint) -> Reading:
    """The reading of what the user says is a published model, or one of its architecture with other labels."""
    *sizes, labels = sizes_and_labels(reading.config)
    *published, published_labels = sizes_and_labels(known)
    if sizes != published:
        said, found = (f"width {width}, depth {depth}, patches {patch}" for width, depth, patch in (published, sizes))
        raise UserError(f"{reading.weights.path} is not {known.name}, which has {said}: it has {found}.")
    if labels == published_labels and _same_images(reading.config, known):
        return replace(reading, checkpoint=known)
    what = f"{labels} labels" if labels != published_labels else f"images of {reading.config.image_size} pixels"
    note = f"it has {what}, unlike {known.name}: no more than numbers were taken from that"
    return replace(reading, like=known, left_to_user=[*reading.left_to_user, note])


def _read(weights: Weights, from_format: str | None, known: Checkpoint | None, hints: dict[str, Any]) -> Reading:
    name = (weights.config or {}).get("model_type")
    own = name in FAMILIES
    if not own:
        weights, name = detect(weights, from_format, known)
    family = name if own else formats.named(name).FAMILY
    unknown = [hint for hint in hints if hint not in _numbers_of(family)]
    if unknown:
        raise UserError(f"--hint {unknown[0]}: no number of a {family} that weights do not tell is called so.")
    try:
        reading = _complete(_own(weights, name, hints) if own else _foreign(weights, name, known, hints))
    except KeysDoNotFit as error:
        raise UserError(f"{weights.path} looks like {name}, but {error}.") from error
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, ZeroDivisionError, StrictDataclassError) as error:
        reason = one_line(error, None).rstrip(".")
        raise UserError(f"{weights.path}: its numbers make no model: {reason}.") from error
    for hint, value in hints.items():
        found = getattr(reading.config, hint)
        if found != (tuple(value) if isinstance(found, tuple) else value):
            raise UserError(f"--hint {hint}={value}: {weights.path} says {found}.")
    return reading


def _numbers_of(family: str) -> set[str]:
    config_class = getattr(hf_swin, FAMILIES[family]["AutoConfig"])
    return set(config_class().to_dict()) - set(PreTrainedConfig().to_dict())


def _foreign(weights: Weights, name: str, known: Checkpoint | None, hints: dict[str, Any]) -> Reading:
    module = formats.named(name)
    if "_rpn_" in str((weights.config or {}).get("architecture")):
        raise UserError(f"{weights.path} is a ViT of timm with norms after its branches, which this package has not.")
    numbers = dict(known.numbers) if known else {}
    if weights.config and "model_type" in weights.config and name.startswith("transformers"):
        numbers = {"config": weights.config}
    tensors = {key: _looked_at(key, tensor) for key, tensor in weights.tensors.items()}
    told = {**numbers, **hints}
    try:
        config = module.config(tensors, told)
        notes = [] if known else _doubts(name, tensors, weights, told)
        return Reading(weights, name, config, plan(tensors, module.rules(config)), left_to_user=notes)
    except KeyError as error:
        raise UserError(f"{weights.path} looks like {name}, but lacks what belongs to {error}.") from error


def _doubts(name: str, tensors: Mapping[str, torch.Tensor], weights: Weights, told: Mapping[str, Any]) -> list[str]:
    """What was taken as usual, because the file does not say it."""
    notes = []
    if name == "timm_vit" and "architecture" not in (weights.config or {}):
        notes.append("DeiT, DINO and MAE have the same keys and other rules for positions at other sizes: see --from")
    windows = any(key.endswith("relative_coords_table") for key in tensors)
    if name == "timm_swin_v2" and not windows and "pretrained_window_sizes" not in told:
        notes.append("taken as trained in this window: a file of the kind 12to16 needs --hint pretrained_window_sizes")
    return notes


def _looked_at(key: str, tensor: LazyTensor) -> torch.Tensor:
    # The windows of a Swin v2 are told by the values of its saved coordinates.
    return tensor.read() if key.endswith("relative_coords_table") else tensor.meta()


def local(source: str | Path) -> Path:
    """Returns the path of a source, downloaded if it is a Hub id; raises `UserError` for neither."""
    path = Path(source)
    if path.exists() or str(source).count("/") != 1 or path.suffix in ENDINGS:
        return path
    try:
        folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "pytorch_model*.bin"]))
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(
            f"{source} is neither a path nor a model that the Hub gives ({first_sentence(error)})."
        ) from error


def _recognised(source: str, weights: Weights) -> Checkpoint | None:
    """The published checkpoint that has exactly this name: a file, a Hub id, or timm's entry in a config.json."""
    config = weights.config or {}
    tag = (config.get("pretrained_cfg") or {}).get("tag")
    names = [source, f"timm/{config.get('architecture')}.{tag}"]
    return next((found for name in names if (found := checkpoints.named(name))), None)


def _own(weights: Weights, kind: str, hints: Mapping[str, Any]) -> Reading:
    """A folder of this package: published names stay, and those of a bare body are given their prefix."""
    models = {name for auto, name in FAMILIES[kind].items() if auto != "AutoConfig"}
    if (weights.config.get("architectures") or [None])[0] not in models:
        raise UserError(f"{weights.path / 'config.json'} names no class of this package in its architectures.")
    config_class = getattr(hf_swin, FAMILIES[kind]["AutoConfig"])
    config = config_class.from_dict({**weights.config, **hints})
    body = class_of(config).base_model_prefix + "."
    apart = ("classifier.", "distillation_classifier.", "decoder.", "hidden_states_norms.")
    tensors = {key: tensor.meta() for key, tensor in weights.tensors.items()}
    with torch.device("meta"):
        model = class_of(config)(config)
    # A file may have names in memory (`save_original_format=False`); from them the way back is one.
    in_memory = {key: name_in_memory(key, kind) for key in tensors}
    published = {key: next(iter(revert_weight_conversion(model, {name: None}))) for key, name in in_memory.items()}
    with_body = body if not any(key.startswith(body) for key in published.values()) else ""
    rules = [Rule(key, name if name.startswith(apart) else with_body + name) for key, name in published.items()]
    return Reading(weights, kind, config, plan(tensors, rules))


def _complete(reading: Reading) -> Reading:
    """Names the class, and checks that it has every parameter that was found, in that shape, and no other."""
    shapes, config = reading.shapes(), reading.config
    if reading.format not in FAMILIES:
        prefix = FAMILIES[config.model_type]["AutoModel"].removesuffix("Model")
        backbone = (config.architectures or [""])[0].endswith("Backbone")
        config.architectures = [prefix + ("Backbone" if backbone else head_of(shapes))]
    with torch.device("meta"):
        model = class_of(config)(config)
    wanted, unread = model.state_dict(), [*SPARE, *(model._keys_to_ignore_on_load_unexpected or ())]
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
    more = [key for name, (key, _) in found.items() if name not in wanted and not re.search("|".join(unread), name)]
    if wrong:
        raise UserError(f"{reading.weights.path}: {wrong[0]}; see --hint and --checkpoint.")
    if missing:
        raise UserError(f"{reading.weights.path} is incomplete: {', '.join(missing[:6])} missing.")
    if more:
        raise UserError(f"{reading.weights.path} has {', '.join(more[:6])}, for which its config has no place.")
    other = next((key for key, tensor in shapes.items() if not tensor.is_floating_point()), None)
    if other:
        raise UserError(f"{reading.weights.path}: {other} is stored as {shapes[other].dtype}, not as a plain number.")
    return reading


def parse_hint(text: str) -> tuple[str, Any]:
    """Returns name and value of `NAME=VALUE`, the value as JSON if it is some; raises `UserError` for other texts."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"--hint {text}: write it as NAME=VALUE, such as num_attention_heads=6.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
