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

from .registration import FAMILIES, register


__version__ = "0.1.0"

# public name -> the module that has it; modules are imported when a name is first used
_MODULES = {
    name: {
        "hf_vit": ("configuration_vit", "modeling_vit"),
        "hf_swin": ("configuration_swin", "modeling_swin"),
        "hf_swin_v2": ("configuration_swin", "modeling_swin_v2"),
    }[model_type][auto_class != "AutoConfig"]
    for model_type, names in FAMILIES.items()
    for auto_class, name in names.items()
}
__all__ = [*_MODULES]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register()
