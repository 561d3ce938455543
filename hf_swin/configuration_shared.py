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
"""What the configs of all families share: they open stock `config.json` files and name the code that travels."""

from typing import Any


# Auto class -> how the name of its model ends
AUTO_CLASSES = {
    "AutoModel": "Model",
    "AutoModelForImageClassification": "ForImageClassification",
    "AutoModelForMaskedImageModeling": "ForMaskedImageModeling",
    "AutoBackbone": "Backbone",
}


def pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """Returns (height, width) of a size given as one int or as a pair."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class StockConfigMixin:
    """Opens the `config.json` of the stock classes of transformers as a config of this package."""

    # stock model_type -> the numbers its own class takes where the file is silent or means something else
    stock_defaults: dict[str, dict[str, Any]] = {}
    # Where the models of a family are defined, and how their names begin.
    modeling_file = ""
    class_prefix = ""

    def __post_init__(self, **kwargs):
        """Names every class of the family for `trust_remote_code`, whichever is saved.

        A file's own entries stand where they name a class of somebody else or, by `user/name--`, another repository.
        """
        config_file = type(self).__module__.rpartition(".")[2]
        auto_map = {"AutoConfig": f"{config_file}.{type(self).__name__}"}
        auto_map |= {auto: f"{self.modeling_file}.{self.class_prefix}{name}" for auto, name in AUTO_CLASSES.items()}
        ours = {entry.rpartition(".")[2] for entry in auto_map.values()}
        written = kwargs.get("auto_map") or {}
        others = {auto: entry for auto, entry in written.items() if entry.rpartition(".")[2] not in ours}
        others |= {auto: entry for auto, entry in written.items() if "--" in entry}
        super().__post_init__(**{**kwargs, "auto_map": {**auto_map, **others}})

    @classmethod
    def from_stock(cls, config_dict: dict[str, Any]) -> dict[str, Any]:
        """Returns the dictionary of this class that gives the numbers of a stock dictionary; its own passes unchanged.

        Raises ValueError for a model that this class cannot hold.
        """
        stock_type = config_dict.get("model_type", cls.model_type)
        if stock_type == cls.model_type:
            return config_dict
        if stock_type not in cls.stock_defaults:
            known = ", ".join([cls.model_type, *cls.stock_defaults])
            raise ValueError(f"{cls.__name__} does not open a {stock_type!r} model; it opens {known}")
        ours = {**cls.stock_defaults[stock_type], **config_dict, "model_type": cls.model_type}
        ours.pop("auto_map", None)  # code for a stock type would be read as code for ours
        # Stock tables leave out the patch that the image does not fill.
        patches = pair(ours.get("patch_size", cls.patch_size))
        sizes = pair(ours.get("image_size", cls.image_size))
        if any(size % patch for size, patch in zip(sizes, patches, strict=True)):
            ours["image_size"] = [size // patch * patch for size, patch in zip(sizes, patches, strict=True)]
        return ours

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        return cls.from_stock(config_dict), kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        return super().from_dict(cls.from_stock(config_dict), **kwargs)
