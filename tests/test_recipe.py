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
"""The table of recipes is complete, and weight decay touches matrices only (defect D20b of the peers)."""

import itertools

import pytest

import hf_swin
from hf_swin.recipe import RECIPES, SMALL_DATA, parameter_groups, recipe_for
from hf_swin.transforms import AUGMENTATIONS


def names_without_decay(model):
    recipe = recipe_for("vit", 100, pretrained=False, weight_decay=0.3)
    decayed, kept = parameter_groups(model, recipe)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    ids = {id(parameter) for parameter in kept["params"]}
    together = [id(parameter) for group in (decayed, kept) for parameter in group["params"]]
    wanted = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(together) == sorted(wanted)
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


def test_every_family_start_and_size_has_a_row():
    rows = itertools.product(("swin", "swin_v2", "vit"), ("random", "pretrained"), ("small", "large"))
    assert set(RECIPES) == set(rows)
    assert all(recipe.augmentation in AUGMENTATIONS and 0 <= recipe.warmup < 1 for recipe in RECIPES.values())


def test_recipe_for_picks_by_start_and_size_and_takes_overrides():
    assert recipe_for("vit", SMALL_DATA, pretrained=False) == RECIPES["vit", "random", "small"]
    assert recipe_for("swin", SMALL_DATA + 1, pretrained=True) == RECIPES["swin", "pretrained", "large"]
    assert recipe_for("swin", 10, pretrained=True, epochs=3).epochs == 3


@pytest.mark.parametrize(
    ("prefix", "never"),
    [
        ("HfSwin", "relative_position_bias_table"),
        ("HfSwinV2", "logit_scale continuous_position_bias"),
        ("HfViT", "cls_token position_embeddings"),
    ],
)
def test_d20b_no_decay_on_tokens_positions_temperatures(prefix, never):
    config = getattr(hf_swin, f"{prefix}Config").for_image_size(32, num_labels=3)
    model = getattr(hf_swin, f"{prefix}ForImageClassification")(config)
    kept = names_without_decay(model)
    for name, parameter in model.named_parameters():
        special = any(word in name for word in never.split())
        assert (name in kept) == (special or parameter.ndim == 1), name
    for word in never.split():
        assert any(word in name for name in kept), word


def test_d20b_no_decay_on_every_kind_of_vit_token():
    config = hf_swin.HfViTConfig.for_image_size(32, num_register_tokens=2, use_distillation_token=True)
    kept = names_without_decay(hf_swin.HfViTForMaskedImageModeling(config))
    for token in ("cls_token", "distillation_token", "register_tokens", "mask_token", "position_embeddings"):
        assert any(name.endswith(token) for name in kept), token


def test_frozen_parameters_are_in_no_group():
    model = hf_swin.HfViTForImageClassification(hf_swin.HfViTConfig.for_image_size(32))
    model.vit.requires_grad_(False)
    assert names_without_decay(model) == {"classifier.bias"}
