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
"""Other sizes, channels and labels than those of the source."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, set_seed

from hf_swin.errors import UserError

from . import checkpoints
from .checkpoints import Checkpoint
from .preprocessing import copy_processor
from .reading import read


IMAGENET = "imagenet-1k"


@dataclass(frozen=True)
class Changes:
    """What is to be different: sizes of the config, the number of labels, or rows of the classifier to keep."""

    sizes: dict[str, int] = field(default_factory=dict)
    num_labels: int | None = None
    label_map: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.sizes or self.num_labels or self.label_map)


def change(folder: Path, out: Path, changes: Changes, known: Checkpoint | None) -> list[str]:
    """Writes a changed model of this package to `out`; returns what was done, in sentences.

    Tables, patches and channels are resized as `from_pretrained` does, by the rule of the publisher. Raises `UserError`
    for sizes and labels that make no model.
    """
    reading = read(folder)
    unknown = [name for name in changes.sizes if not hasattr(reading.config, name)]
    if unknown:
        option = unknown[0].replace("_", "-")
        raise UserError(f"a {reading.config.model_type} has no {unknown[0]}: leave --{option} out.")
    try:
        config = type(reading.config).from_pretrained(folder, **changes.sizes)
        model = reading.model_class.from_pretrained(folder, config=config)
    except ValueError as error:
        raise UserError(f"these sizes make no model: {error}.") from error
    done = [
        f"{name} from {getattr(reading.config, name)} to {getattr(model.config, name)}"
        for name in (*changes.sizes, "pretrained_window_sizes")
        if getattr(model.config, name, None) != getattr(reading.config, name, None)
    ]
    if changes.num_labels or changes.label_map:
        done.append(_new_classifier(model, changes, known))
    model.save_pretrained(out)
    copy_processor(folder, out, reading.config.image_size, model.config.image_size)
    return done


def _new_classifier(model: PreTrainedModel, changes: Changes, known: Checkpoint | None) -> str:
    if not model.config.architectures[0].endswith("ForImageClassification"):
        raise UserError(f"a {type(model).__name__} has no classifier: leave --num-labels and --label-map out.")
    before, count, old_names = model.config.num_labels, changes.num_labels, model.config.id2label
    rows = _rows(changes, known, before)
    if rows is None and count == before:
        return f"the classifier of {before} labels was kept"
    heads = [name for name in ("classifier", "distillation_classifier") if getattr(model, name, None) is not None]
    model.config.num_labels = len(rows) if rows is not None else count
    set_seed(0)
    for name in heads:
        old = getattr(model, name)
        new = nn.Linear(old.in_features, model.config.num_labels, dtype=old.weight.dtype)
        model._init_weights(new)
        if rows is not None:
            new.load_state_dict({key: tensor[rows] for key, tensor in old.state_dict().items()})
        setattr(model, name, new)
    if rows is None:
        return f"a new classifier of {count} labels in place of {before}"
    names = checkpoints.id2label(IMAGENET)
    if changes.label_map:
        names = {index: old_names[row] for index, row in enumerate(rows)} if old_names[0] != "LABEL_0" else None
    if names:
        model.config.id2label, model.config.label2id = names, {name: index for index, name in names.items()}
    return f"the classifier of {before} labels was cut to {len(rows)} of its rows"


def _rows(changes: Changes, known: Checkpoint | None, before: int) -> list[int] | None:
    """The rows of the classifier to keep: as a file says, or those of ImageNet-1k in a larger ImageNet."""
    if changes.label_map is None:
        larger = known and (known.labels, IMAGENET) in checkpoints.LABEL_MAPS
        return checkpoints.label_map(known.labels, IMAGENET) if larger and changes.num_labels == 1000 else None
    try:
        rows = [int(line) for line in changes.label_map.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise UserError(f"--label-map {changes.label_map}: no text of one row number a line ({error}).") from error
    if not rows or not all(0 <= row < before for row in rows):
        raise UserError(f"--label-map {changes.label_map}: rows are 0 to {before - 1}.")
    if changes.num_labels not in (None, len(rows)):
        raise UserError(f"--label-map has {len(rows)} rows and --num-labels is {changes.num_labels}: leave one out.")
    return rows
