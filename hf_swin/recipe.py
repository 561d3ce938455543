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
"""The numbers of a fine-tuning run, as a table that the command line or a file can override."""

import json
import math
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError, one_line


def _number(text: str, default: Any = MISSING, least: float = 0, most: float = math.inf) -> Any:
    return field(default=default, metadata={"help": text, "least": least, "most": most})


def _choice(text: str, default: str, *others: str) -> Any:
    return field(default=default, metadata={"help": text, "choices": (default, *others)})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one run trains: AdamW, a linear warm-up, then half a cosine down to zero.

    Raises `UserError` for a number out of its range.
    """

    epochs: int = _number("Passes over the training images.", least=1)
    batch_size: int = _number("Images of one update, over all processes and accumulated steps.", least=1)
    learning_rate: float = _number("Highest learning rate, that of the head.")
    layer_decay: float = _number("Factor on the learning rate for each block further from the head.", 1.0, most=1)
    weight_decay: float = _number("Pull of AdamW towards zero; spares biases, norms, tokens and tables.", 0.05)
    warmup: float = _number("Part of all updates spent warming up.", 0.1, most=1)
    clip: float = _number("Longest gradient; 0 is no limit.", 1.0)
    label_smoothing: float = _number("Part of a label spread over all classes.", 0.1, most=1)
    drop_path: float = _number("Rate at which the deepest block is skipped; lower ones less.", 0.0, most=1)
    augmentation: str = _choice("Changes to training images.", "light", "none", "photo", "randaugment")
    random_erasing: float = _number("Probability of a blank rectangle in a training image.", 0.0, most=1)
    mixup: float = _number("Alpha of MixUp, which blends two images and their labels; 0 is off.", 0.0)
    cutmix: float = _number("Alpha of CutMix, which pastes a rectangle of another image; 0 is off.", 0.0)
    ema: float = _number("Decay of the running mean of the weights that is evaluated and saved; 0 is off.", 0.0, most=1)
    freeze: int = _number("First stages (Swin) or blocks (ViT) left as they are; 0 trains everything.", 0)
    balance: str = _choice(
        "For rare classes: weights in the loss, or drawn as often as the others.", "none", "loss", "sampling"
    )
    keep: str = _choice("Which weights to save: those of the last epoch, or of the best by `metric`.", "last", "best")
    metric: str = _choice(
        "Score that `keep` and `patience` go by.",
        "auto",
        "accuracy",
        "macro_f1",
        "balanced_accuracy",
        "mean_average_precision",
        "loss",
    )
    patience: int = _number("Epochs without a better `metric` after which to stop; 0 is never.", 0)
    accumulation: int = _number("Parts that an update's images are worked on in, to need less memory.", 1, least=1)
    lora_rank: int = _number("Rank of the matrices that the speed `lora` trains.", 8, least=1)

    def __post_init__(self):
        for name, entry in FIELDS.items():
            object.__setattr__(self, name, _checked(name, entry, getattr(self, name)))

    @property
    def selects(self) -> bool:
        """Whether the run goes by a score, for which it needs images that are neither trained on nor tested on."""
        return self.keep == "best" or self.patience > 0


FIELDS: dict[str, Field] = {entry.name: entry for entry in fields(Recipe)}


def _checked(name: str, entry: Field, value: Any) -> Any:
    choices = entry.metadata.get("choices")
    if choices:
        if value not in choices:
            raise UserError(f"there is no {name} {value!r}: choose one of {', '.join(choices)}.")
        return value
    whole = entry.type is int
    if isinstance(value, str) or value is None or isinstance(value, bool) or (whole and value != int(value)):
        raise UserError(f"{name} is {value!r}: give a {'whole ' if whole else ''}number.")
    least, most = entry.metadata["least"], entry.metadata["most"]
    if not least <= value <= most:
        limits = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise UserError(f"{name} is {value}: give {limits}.")
    return entry.type(value)


# Training images up to which a data set counts as small.
SMALL_DATA = 5_000

# From random weights on small data: chosen on a validation part of the training images of the digits.
RECIPES: dict[tuple[str, str, str], Recipe] = {
    # family, weights to start from, data size
    ("swin", "random", "small"): Recipe(epochs=15, batch_size=32, learning_rate=1e-3),
    ("swin", "random", "large"): Recipe(epochs=60, batch_size=128, learning_rate=1e-3, drop_path=0.1),
    ("swin", "pretrained", "small"): Recipe(epochs=10, batch_size=32, learning_rate=1e-4, drop_path=0.1),
    ("swin", "pretrained", "large"): Recipe(epochs=5, batch_size=64, learning_rate=1e-4, drop_path=0.1),
    ("swin_v2", "random", "small"): Recipe(epochs=20, batch_size=32, learning_rate=1e-3),
    ("swin_v2", "random", "large"): Recipe(epochs=60, batch_size=128, learning_rate=1e-3, drop_path=0.1),
    ("swin_v2", "pretrained", "small"): Recipe(epochs=10, batch_size=32, learning_rate=1e-4, drop_path=0.1),
    ("swin_v2", "pretrained", "large"): Recipe(epochs=5, batch_size=64, learning_rate=1e-4, drop_path=0.1),
    ("vit", "random", "small"): Recipe(epochs=25, batch_size=32, learning_rate=2e-3),
    ("vit", "random", "large"): Recipe(epochs=60, batch_size=128, learning_rate=1e-3, drop_path=0.1),
    ("vit", "pretrained", "small"): Recipe(epochs=10, batch_size=32, learning_rate=5e-5, drop_path=0.1),
    ("vit", "pretrained", "large"): Recipe(epochs=5, batch_size=64, learning_rate=5e-5, drop_path=0.1),
}


def recipe_for(family: str, images: int, pretrained: bool, **overrides: Any) -> Recipe:
    """Return the row of the table for a family and a number of training images; `overrides` replace its numbers.

    Raises `UserError` for a name that a recipe does not have, or a value out of range.
    """
    start = "pretrained" if pretrained else "random"
    size = "small" if images <= SMALL_DATA else "large"
    unknown = sorted(set(overrides) - set(FIELDS))
    if unknown:
        raise UserError(f"a recipe has no {unknown[0]!r}: it has {', '.join(FIELDS)}.")
    return replace(RECIPES[family, start, size], **overrides)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the overrides in a YAML or JSON file: a recipe's own names, or a run's `metrics.json` with its `recipe`.

    Raises `UserError` for a file that cannot be read or holds something else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a recipe ({one_line(error)}): give a YAML or JSON file.") from error
    found = found.get("recipe", found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no recipe: write lines like `epochs: 10`.")
    return found
