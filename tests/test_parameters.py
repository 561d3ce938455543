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
"""How deep each parameter lies, which decay (defect D20b of the peers), and which stay frozen."""

import pytest

import hf_swin
from hf_swin.parameters import depth_of, freeze, parameter_groups
from hf_swin.recipe import recipe_for
from hf_swin.starting import with_adapters


def classifier(prefix, **numbers):
    config = getattr(hf_swin, f"{prefix}Config").for_image_size(32, num_labels=3, **numbers)
    return getattr(hf_swin, f"{prefix}ForImageClassification")(config)


def numbers_of(model, **numbers):
    """Name -> (learning rate, weight decay) of every trainable parameter, each in one group."""
    recipe = recipe_for("vit", 100, pretrained=False, **numbers)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in parameter_groups(model, recipe, model.config):
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return found


@pytest.mark.parametrize(
    ("prefix", "never"),
    [
        ("HfSwin", "relative_position_bias_table"),
        ("HfSwinV2", "logit_scale continuous_position_bias"),
        ("HfViT", "cls_token position_embeddings"),
    ],
)
def test_d20b_no_decay_on_tokens_positions_temperatures(prefix, never):
    model = classifier(prefix)
    found = numbers_of(model, weight_decay=0.3)
    for name, parameter in model.named_parameters():
        special = any(word in name for word in never.split())
        assert found[name][1] == (0.0 if special or parameter.ndim == 1 else 0.3), name
    for word in never.split():
        assert any(word in name for name in found), word


def test_d20b_no_decay_on_every_kind_of_vit_token():
    config = hf_swin.HfViTConfig.for_image_size(32, num_register_tokens=2, use_distillation_token=True)
    found = numbers_of(hf_swin.HfViTForMaskedImageModeling(config))
    for token in ("cls_token", "distillation_token", "register_tokens", "mask_token", "position_embeddings"):
        assert [decay for name, (_, decay) in found.items() if name.endswith(token)] == [0.0], token


def test_frozen_parameters_are_in_no_group():
    model = classifier("HfViT")
    model.vit.requires_grad_(False)
    assert set(numbers_of(model)) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("prefix", "places"),
    [
        (
            "HfViT",
            {
                "embeddings.cls_token": 0,
                "layers.0.mlp.fc1.weight": 1,
                "layers.5.mlp.fc1.weight": 6,
                "layernorm.weight": 7,
            },
        ),
        (
            "HfSwin",
            {
                "embeddings.norm.weight": 0,
                "stages.0.blocks.0.mlp.fc1.weight": 1,
                "stages.0.blocks.1.mlp.fc1.weight": 2,
                "stages.0.merging.reduction.weight": 2,
                "stages.1.blocks.0.mlp.fc1.weight": 3,
                "stages.2.blocks.1.attention.q_proj.weight": 6,
                "layernorm.weight": 7,
            },
        ),
    ],
)
def test_the_learning_rate_decays_from_the_head_down(prefix, places):
    model = classifier(prefix)
    found = numbers_of(model, learning_rate=1.0, layer_decay=0.5)
    for name, place in places.items():
        full = f"{model.base_model_prefix}.{name}"
        assert depth_of(full, model.config) == place
        assert found[full][0] == 0.5 ** (7 - place)
    assert found["classifier.weight"][0] == 1.0


def test_without_layer_decay_there_are_two_groups():
    recipe = recipe_for("vit", 100, pretrained=False)
    assert len(parameter_groups(classifier("HfSwinV2"), recipe, classifier("HfSwinV2").config)) == 2


def test_the_names_of_adapters_lie_where_their_block_lies():
    model = with_adapters(classifier("HfSwin"), 4)
    found = numbers_of(model, learning_rate=1.0, layer_decay=0.5)
    assert {rate for name, (rate, _) in found.items() if "stages.0.blocks.0" in name} == {0.5**6}
    assert {rate for name, (rate, _) in found.items() if "classifier" in name} == {1.0}
    assert all("lora_" in name or "classifier" in name for name in found)


@pytest.mark.parametrize("prefix", ["HfSwin", "HfSwinV2", "HfViT"])
def test_freezing_stops_the_first_parts(prefix):
    model = classifier(prefix)
    frozen = freeze(model, 2)
    row = getattr(model.base_model, "stages", None) or model.base_model.layers
    still = {
        id(parameter) for module in (model.base_model.embeddings, row[0], row[1]) for parameter in module.parameters()
    }
    assert len(frozen) == 3
    assert all(parameter.requires_grad == (id(parameter) not in still) for parameter in model.parameters())


def test_more_parts_than_there_are_cannot_be_frozen():
    with pytest.raises(ValueError, match="has 3 stages or blocks, not 4"):
        freeze(classifier("HfSwin"), 4)
    with pytest.raises(ValueError, match="nothing but its adapters"):
        freeze(with_adapters(classifier("HfSwin"), 4), 1)
    assert freeze(classifier("HfSwin"), 0) == []
