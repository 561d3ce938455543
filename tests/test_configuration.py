"""Configs: what they refuse, what follows from them, and what a small image gets."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_swin import HfSwinConfig, HfSwinV2Config, HfViTConfig

from tiny import FAMILIES, config_of


@pytest.mark.parametrize(
    "config_class, numbers, sentence",
    [
        (
            HfSwinConfig,
            {"embed_dim": 100},
            "stage 1: 100 channels do not divide into 3 heads; change embed_dim or num_heads",
        ),
        (HfSwinConfig, {"depths": (2, 2, 2)}, "num_heads .* has 4 entries for 3 stages"),
        (HfSwinConfig, {"window_size": [7, 7]}, "window_size .* has 2 entries for 4 stages"),
        (HfSwinConfig, {"window_size": [[7, 14]] * 4, "small_input": "square"}, "needs square windows"),
        (HfViTConfig, {"num_attention_heads": 7}, "768 does not divide into 7 heads"),
        (HfViTConfig, {"use_class_token": False}, "needs the class token"),
        (HfViTConfig, {"use_distillation_head": True}, "needs use_distillation_token"),
        (HfViTConfig, {"drop_path_rate": 1.0}, "drop_path_rate is a probability below 1, got 1.0"),
        (HfSwinConfig, {"hidden_dropout_prob": -0.1}, "hidden_dropout_prob is a probability"),
        (HfSwinConfig, {"window_size": 0}, "a window has at least one token a side"),
        (HfSwinV2Config, {"pretrained_window_sizes": [12]}, "has fewer entries than the 4 stages"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_by_name(config_class, numbers, sentence):
    with pytest.raises(StrictDataclassError, match=sentence):
        config_class(**numbers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_survives_its_file(family, tmp_path):
    config = config_of(family, image_size=[64, 32], out_indices=[1, 2])
    config.save_pretrained(tmp_path)
    again = type(config).from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()


def test_windows_may_differ_by_stage_and_axis():
    specs = HfSwinConfig(window_size=[7, [7, 14], 14, 7]).stage_specs()
    assert [spec.blocks[0].window for spec in specs] == [(7, 7), (7, 14), (14, 14), (7, 7)]


def test_drop_path_grows_linearly_over_all_blocks():
    rates = [
        block.drop_path_rate for stage in HfSwinConfig(drop_path_rate=0.11).stage_specs() for block in stage.blocks
    ]
    assert rates == pytest.approx([index / 100 for index in range(12)])


def test_swin_v2_never_has_a_window_larger_than_its_grid():
    specs = HfSwinV2Config(image_size=[256, 512], window_size=16).stage_specs()
    assert [spec.blocks[0].window for spec in specs] == [(16, 16)] * 3 + [(8, 16)]


def test_pretrained_windows_define_the_bias_and_the_window_in_use_otherwise():
    specs = HfSwinV2Config(image_size=256, window_size=16, pretrained_window_sizes=[12, 12, 12, 0]).stage_specs()
    assert [spec.blocks[0].reference_window for spec in specs] == [(12, 12)] * 3 + [(8, 8)]


@pytest.mark.parametrize("config_class", [HfViTConfig, HfSwinConfig, HfSwinV2Config])
def test_small_images_get_patches_and_windows_that_fit(config_class):
    for size in (28, 30, 32, 45, 48, 56, 64, 96, 112):
        config = config_class.for_image_size(size, num_labels=3)
        assert config.num_labels == 3
        if config_class is HfViTConfig:
            assert 7 <= config.grid[0] <= 14
        else:
            assert config.grid[0] > config.window_size and -config.grid[0] % config.window_size <= 1
    for size in (8, 224):
        with pytest.raises(ValueError, match="28 to 112 pixels"):
            config_class.for_image_size(size)


@pytest.mark.parametrize("config_class", [HfViTConfig, HfSwinConfig, HfSwinV2Config])
def test_an_unknown_preset_lists_those_there_are(config_class):
    with pytest.raises(ValueError, match="no preset is called 'enormous'; choose one of tiny, small, base, large"):
        config_class.preset("enormous")
    assert config_class.preset("tiny", num_labels=7).num_labels == 7


def test_derived_sizes_win_over_what_a_file_says():
    assert HfSwinConfig(embed_dim=48, num_heads=(3, 3, 3, 3), hidden_size=768).hidden_size == 384
