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
"""Vision Transformer, Swin and Swin v2 for transformers: any public checkpoint, any image size, their own numbers."""

from importlib import import_module

from .registration import register


__version__ = "0.1.0"

# module -> its public names; a module is imported when one of its names is first used
_NAMES = {
    "configuration_vit": ["HfViTConfig"],
    "configuration_swin": ["HfSwinConfig", "HfSwinV2Config"],
    "modeling_vit": ["HfViTModel", "HfViTForImageClassification", "HfViTForMaskedImageModeling", "HfViTBackbone"],
    "modeling_swin": ["HfSwinModel", "HfSwinForImageClassification", "HfSwinForMaskedImageModeling", "HfSwinBackbone"],
    "modeling_swin_v2": [
        "HfSwinV2Model",
        "HfSwinV2ForImageClassification",
        "HfSwinV2ForMaskedImageModeling",
        "HfSwinV2Backbone",
    ],
    "optimization": ["optimize"],
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [*_MODULE_OF]


def __getattr__(name: str):
    """Imports the module of a public name when the name is first used; `import hf_swin` itself stays light."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _MODULE_OF[name].startswith("modeling_"):
        import_module(".window_kernel", __name__)  # which makes its name known as an attention implementation
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register()
