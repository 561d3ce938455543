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
"""The table of recipes is complete, and its numbers can be replaced by options and files, within their ranges."""

import itertools
import json
from dataclasses import asdict

import pytest

from hf_swin.errors import UserError
from hf_swin.recipe import FIELDS, RECIPES, SMALL_DATA, Recipe, read_recipe, recipe_for


def test_every_family_start_and_size_has_a_row():
    rows = itertools.product(("swin", "swin_v2", "vit"), ("random", "pretrained"), ("small", "large"))
    assert set(RECIPES) == set(rows)


def test_recipe_for_picks_by_start_and_size_and_takes_overrides():
    assert recipe_for("vit", SMALL_DATA, pretrained=False) == RECIPES["vit", "random", "small"]
    assert recipe_for("swin", SMALL_DATA + 1, pretrained=True) == RECIPES["swin", "pretrained", "large"]
    assert recipe_for("swin", 10, pretrained=True, epochs=3).epochs == 3


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"speed": 3}, "a recipe has no 'speed': it has epochs, batch_size"),
        ({"epochs": 0}, "epochs is 0: give 1 or more"),
        ({"epochs": 2.5}, "epochs is 2.5: give a whole number"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast': give a number"),
        ({"learning_rate": None}, "learning_rate is None: give a number"),
        ({"mixup": True}, "mixup is True: give a number"),
        ({"drop_path": 1.5}, "drop_path is 1.5: give 0 to 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: give 0 or more"),
        ({"balance": "both"}, "no balance 'both': choose one of none, loss, sampling"),
    ],
)
def test_a_wrong_number_is_named(numbers, message):
    with pytest.raises(UserError, match=message):
        recipe_for("vit", 10, pretrained=False, **numbers)


def test_numbers_have_the_type_of_their_field():
    recipe = recipe_for("vit", 10, pretrained=False, epochs=3.0, mixup=1)
    assert (type(recipe.epochs), type(recipe.mixup)) == (int, float)


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"].endswith(".") for field in FIELDS.values())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "epochs: 3\nlearning_rate: 1.0e-3\nkeep: best\n"),
        ("a.yml", "{epochs: 3, learning_rate: 0.001, keep: best}"),
        ("a.json", '{"epochs": 3, "learning_rate": 1e-3, "keep": "best"}'),
        ("metrics.json", '{"scores": {}, "recipe": {"epochs": 3, "learning_rate": 1e-3, "keep": "best"}}'),
    ],
)
def test_a_file_gives_overrides(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_recipe(tmp_path / name) == {"epochs": 3, "learning_rate": 1e-3, "keep": "best"}


def test_the_recipe_of_a_run_repeats_it(tmp_path):
    recipe = recipe_for("swin", 10, pretrained=False, cutmix=1, ema=0.9)
    (tmp_path / "metrics.json").write_text(json.dumps({"recipe": asdict(recipe)}))
    assert recipe_for("vit", 10**6, pretrained=True, **read_recipe(tmp_path / "metrics.json")) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n- b", "holds no recipe"), ("a: [", "cannot be read as a recipe"), (None, "cannot be read")],
)
def test_a_file_that_holds_no_recipe_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe(tmp_path / "a.yaml")


def test_only_a_recipe_that_goes_by_a_score_selects():
    numbers = {"epochs": 1, "batch_size": 1, "learning_rate": 1}
    assert not Recipe(**numbers).selects
    assert Recipe(**numbers, keep="best").selects and Recipe(**numbers, patience=1).selects
