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
"""Makes the Auto classes of transformers know the models of this package: the one place with import side effects."""

import sys

from transformers.models.auto import auto_mappings, configuration_auto, modeling_auto


# model type -> name of its config, and of its model in each Auto class
FAMILIES: dict[str, dict[str, str]] = {
    model_type: {
        "AutoConfig": f"{prefix}Config",
        "AutoModel": f"{prefix}Model",
        "AutoModelForImageClassification": f"{prefix}ForImageClassification",
        "AutoModelForMaskedImageModeling": f"{prefix}ForMaskedImageModeling",
        "AutoBackbone": f"{prefix}Backbone",
    }
    for model_type, prefix in {"hf_vit": "HfViT", "hf_swin": "HfSwin", "hf_swin_v2": "HfSwinV2"}.items()
}


def register() -> None:
    """Enters every model into the tables in which transformers keeps the names of its own; may be called again.

    `AutoModel.register` takes classes, and to have them means importing the modelling code of transformers, three
    seconds that `import transformers` itself puts off until a model is wanted. Names put it off here too. They are
    looked up in the module `transformers.models.<model type>`, so this package stands under that name as well.
    """
    for model_type, names in FAMILIES.items():
        sys.modules[f"transformers.models.{model_type}"] = sys.modules["hf_swin"]
        configuration_auto.CONFIG_MAPPING_NAMES[model_type] = names["AutoConfig"]
        auto_mappings.IMAGE_PROCESSOR_MAPPING_NAMES[model_type] = auto_mappings.IMAGE_PROCESSOR_MAPPING_NAMES["vit"]
        mappings = {name: getattr(modeling_auto, name)._model_mapping for name in names if name != "AutoConfig"}
        for name, mapping in mappings.items():
            mapping._model_mapping[model_type] = names[name]
            mapping._reverse_config_mapping[names["AutoConfig"]] = model_type
        image_processing_auto = sys.modules.get("transformers.models.auto.image_processing_auto")
        if image_processing_auto is not None:  # imported before us, so its table of configs is made already
            image_processing_auto.IMAGE_PROCESSOR_MAPPING._reverse_config_mapping[names["AutoConfig"]] = model_type
