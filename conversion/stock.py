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
"""What all formats of transformers share: the config.json beside the weights, and the prefix that bodies lack."""

from collections.abc import Callable, Mapping
from typing import Any

import transformers
from transformers import PreTrainedConfig

from .keymap import Rule, convert
from .sizes import Tensors, head_of


def read_config(
    config_class: type[PreTrainedConfig],
    tensors: Tensors,
    hints: Mapping[str, Any],
    stock: str,
    body: str,
    rules: Callable[[str], list[Rule]],
    sizes: Callable[[Tensors, Mapping[str, Any]], PreTrainedConfig],
) -> PreTrainedConfig:
    """Returns our config of stock weights: from their config.json where there is one, otherwise from their shapes.

    `stock` begins the class names of transformers, `body` the keys of its heads; `rules` takes the prefix found.
    """
    hints = dict(hints)
    written = hints.pop("config", None)
    prefix = body if any(key.startswith(body + "embeddings.") for key in tensors) else ""
    ours = convert(tensors, rules(prefix))
    config = config_class.from_dict({**written, **hints}) if written else sizes(ours, hints)
    head = head_of(ours)
    if head == "Model" and prefix:
        head = "ForImageClassification"  # saved without its classifier
    elif head == "Model" and ((written or {}).get("architectures") or [""])[0].endswith("Backbone"):
        head = "Backbone"  # without norms of its own
    config.architectures = [stock + head]
    return config


def prefix_of(config: PreTrainedConfig | None, body: str) -> str:
    """Returns what the keys of a body begin with in the stock class that the config names: nothing in a bare body."""
    bare = config is not None and (config.architectures or [""])[0].endswith(("Model", "Backbone"))
    return "" if bare else body


def stock_config(config: PreTrainedConfig, class_name: str, **numbers: Any) -> PreTrainedConfig:
    """Returns the config of a stock class with the fields that it shares with ours."""
    stock_class = getattr(transformers, class_name)
    fields = set(stock_class().to_dict()) - {"model_type", "architectures", "transformers_version", "auto_map"}
    shared = {name: value for name, value in config.to_dict().items() if name in fields}
    return stock_class(**{**shared, **numbers}, architectures=config.architectures)
