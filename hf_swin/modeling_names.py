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
"""Names on disk and in memory: files keep the published layout of transformers, modules say what they do."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming


class ReadOnlyRenaming(WeightRenaming):
    """Renames the keys of a file as it is read; a saved file keeps the names of this package's own layout."""

    __slots__ = ()

    def reverse_transform(self) -> WeightRenaming:
        return WeightRenaming(r"(?!)", "")  # matches no key


# on disk, in memory; read and written
BLOCK = [
    (r"\.layernorm_before\.", r"\.attention_norm\."),
    (r"\.attention\.output\.dense\.", r"\.attention\.o_proj\."),
    (r"\.layernorm_after\.", r"\.mlp_norm\."),
    (r"\.intermediate\.dense\.", r"\.mlp\.fc1\."),
    (r"\.output\.dense\.", r"\.mlp\.fc2\."),
    (r"decoder\.0\.", r"decoder\.projection\."),
]
VIT = [
    (r"encoder\.layer\.", r"layers\."),
    (r"\.attention\.attention\.query\.", r"\.attention\.q_proj\."),
    (r"\.attention\.attention\.key\.", r"\.attention\.k_proj\."),
    (r"\.attention\.attention\.value\.", r"\.attention\.v_proj\."),
    (r"\.layer_scale1\.lambda1", r"\.attention_scale\.weight"),
    (r"\.layer_scale2\.lambda1", r"\.mlp_scale\.weight"),
    *BLOCK,
]
STAGES = [
    (r"encoder\.layers\.", r"stages\."),
    (r"\.attention\.self\.query\.", r"\.attention\.q_proj\."),
    (r"\.attention\.self\.key\.", r"\.attention\.k_proj\."),
    (r"\.attention\.self\.value\.", r"\.attention\.v_proj\."),
    (r"\.downsample\.", r"\.merging\."),
    *BLOCK,
]
SWIN = [(r"\.self\.relative_position_bias_table", r"\.relative_position_bias_table"), *STAGES]
SWIN_V2 = [
    (r"\.self\.logit_scale", r"\.logit_scale"),
    (r"\.self\.continuous_position_bias_mlp\.0\.", r"\.continuous_position_bias\.fc1\."),
    (r"\.self\.continuous_position_bias_mlp\.2\.", r"\.continuous_position_bias\.fc2\."),
    *STAGES,
]
# DeiT and DINOv2 files; read, and written under ViT's names
VIT_ALIASES = [
    (r"^(?:deit|dinov2|dinov2_with_registers)\.", "vit."),
    (r"^cls_classifier\.", "classifier."),
    (r"\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.weights_in\.", ".fc1."),
    (r"\.weights_out\.", ".fc2."),
]


def register_names(model_type: str, names: list[tuple[str, str]], aliases: list[tuple[str, str]] = ()) -> None:
    """Tells the loader of transformers how a family is named on disk; `aliases` are only read."""
    renamings = [*(ReadOnlyRenaming(*rule) for rule in aliases), *(WeightRenaming(*rule) for rule in names)]
    register_checkpoint_conversion_mapping(model_type, renamings, overwrite=True)


def name_in_memory(key: str, model_type: str) -> str:
    """Returns what the parameter of a published name is called in memory; a name in memory stays as it is."""
    for renaming in get_checkpoint_conversion_mapping(model_type):
        key, _ = renaming.rename_source_key(key)
    return key


class PublishedNamesMixin:
    """Lets `load_state_dict` take published names as well as those in memory.

    `Trainer` resumes by reading a file and calling `load_state_dict(..., strict=False)`: without this every name would
    be unexpected, and training would go on from random weights.
    """

    def load_state_dict(self, state_dict, strict=True, assign=False):
        renamed = {name_in_memory(key, self.config.model_type): tensor for key, tensor in state_dict.items()}
        return super().load_state_dict(renamed, strict=strict, assign=assign)
