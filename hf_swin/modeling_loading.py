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
"""Weights opened at other sizes than their own: `from_pretrained` resizes what transformers refuses."""

from typing import Any

import torch
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging

from .configuration_resizing import SIZES, fitted, shapes_of, with_sizes_of
from .modeling_resizing import adapted


# Arguments that say where a repository's files are.
WHERE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
# Arguments about the model in use, which the one that only reads the file does without; also those that look like a
# field of the config.
PLACEMENT = (
    *("dtype", "torch_dtype", "attn_implementation", "experts_implementation", "quantization_config"),
    *("device_map", "max_memory", "offload_folder", "offload_buffers", "output_loading_info"),
    *("ignore_mismatched_sizes", "distributed_config", "device_mesh", "tp_plan", "tp_size"),
    *("use_kernels", "kernel_config", "allow_all_kernels", "fusion_config"),
)


class ResizingMixin:
    """Lets `from_pretrained` open weights at other sizes than their own."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *model_args,
        config: PreTrainedConfig | str | None = None,
        **kwargs,
    ):
        """Opens weights as transformers does, and at other sizes than their own if the config or keywords ask for them.

        `image_size`, `patch_size` (pixels), `window_size` (tokens) and `num_channels` resize position tables, bias
        tables and patch embeddings by the rules of the config; `output_loading_info` then has `resized_keys`. Raises
        ValueError for a masked-image decoder of other patches or channels.
        """
        path = pretrained_model_name_or_path
        configs = cls._configs_of(path, config, kwargs)
        if configs is None:
            return super().from_pretrained(path, *model_args, config=config, **kwargs)
        file_config, config, kwargs = configs
        if shapes_of(file_config) == shapes_of(config):
            return super().from_pretrained(path, *model_args, config=config, **kwargs)
        return cls._from_resized(path, file_config, config, *model_args, **kwargs)

    @classmethod
    def _configs_of(
        cls, path, config: PreTrainedConfig | str | None, kwargs: dict[str, Any]
    ) -> tuple[PreTrainedConfig, PreTrainedConfig, dict[str, Any]] | None:
        """Returns the file's config, the one to build, and the arguments it leaves; None where no size is in question.

        Auto classes have put the keywords into a config already. Remote code has config classes of its own, so that
        the model type tells, not the class.
        """
        if path is None or (config is None and not set(SIZES) & set(kwargs)):
            return None
        # CODEPATH: no checkpoint; the config of another family, which transformers refuses in its own words.
        if isinstance(config, PreTrainedConfig) and config.model_type != cls.config_class.model_type:
            return None
        where = {name: kwargs[name] for name in WHERE if name in kwargs}
        try:
            written, _ = cls.config_class.get_config_dict(path, **where)
        except (OSError, ValueError):  # no such folder, or another family's: refused below in the usual words
            return None
        if not written:  # weights without a config.json: nothing to compare with
            return None
        file_config = cls.config_class.from_dict(written)
        if not isinstance(config, PreTrainedConfig):
            fields = {k: v for k, v in kwargs.items() if k not in PLACEMENT + WHERE and hasattr(file_config, k)}
            kwargs = {k: v for k, v in kwargs.items() if k not in fields}
            config = cls.config_class.from_pretrained(config or path, **where, **fields)
        return file_config, fitted(file_config, config), kwargs

    @classmethod
    def _from_resized(
        cls, path, file_config: PreTrainedConfig, config: PreTrainedConfig, *model_args, **kwargs
    ) -> "ResizingMixin | tuple[ResizingMixin, dict[str, Any]]":
        """Reads the weights at the file's sizes and hands them, resized, to the loader of transformers.

        Both models share the memory of what is not resized.
        """
        tensors, resized_keys = cls._read_resized(path, file_config, config, *model_args, **kwargs)
        opened = super().from_pretrained(None, *model_args, config=config, state_dict=tensors, **kwargs)
        model = opened[0] if isinstance(opened, tuple) else opened
        model._weight_conversions = None  # noted for names in memory; without, the published ones are saved
        model.name_or_path = model.config.name_or_path = str(path)
        if isinstance(opened, tuple):
            opened[1]["resized_keys"] = resized_keys
        return opened

    @classmethod
    def _read_resized(
        cls, path, file_config: PreTrainedConfig, config: PreTrainedConfig, *model_args, **kwargs
    ) -> tuple[dict[str, torch.Tensor], set[str]]:
        """Returns the tensors of a file in the shapes that `config` needs, and the names of those that were resized."""
        reading = {name: value for name, value in kwargs.items() if name not in PLACEMENT}
        # What the user wants in float32 is resized in float32; halves are made after resizing.
        wants_float32 = kwargs.get("dtype", kwargs.get("torch_dtype")) in (torch.float32, "float32")
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # the second loading reports for both
        try:
            model, info = super().from_pretrained(
                path,
                *model_args,
                config=with_sizes_of(file_config, config),
                dtype=torch.float32 if wants_float32 else "auto",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **reading,
            )
        finally:
            logging.set_verbosity(verbosity)
        if getattr(model, "_hf_peft_config_loaded", False):
            raise ValueError(
                f"the adapter loaded with {path} has sizes of its own; save the merged model and resize that"
            )
        absent = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
        read = {key: tensor for key, tensor in model.state_dict().items() if key not in absent}
        kept = {}
        if kwargs.get("ignore_mismatched_sizes"):
            kept = {key: read.pop(key) for key in list(read) if key.startswith("decoder.")}
        tensors = {**adapted(read, file_config, config), **kept}
        resized_keys = {key for key, tensor in read.items() if tensors[key] is not tensor}
        # Stand-ins without memory, for the loader to report as it would have done.
        tensors |= {key: torch.zeros(()).expand(shape) for key, shape, *_ in info["mismatched_keys"]}
        tensors |= {key: torch.zeros(()) for key in info["unexpected_keys"]}
        return tensors, resized_keys
