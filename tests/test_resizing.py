"""Tables, patches and channels in other sizes, each rule against the publisher's own code or its formula."""

import typing

import numpy as np
import pytest
import scipy
import timm.layers.pos_embed_rel as timm_tables
import torch
import transformers
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models._manipulate import adapt_input_conv
from torch.nn.functional import conv2d, interpolate
from torchvision.models.vision_transformer import interpolate_embeddings

import hf_swin
from hf_swin.configuration_resizing import fitted
from hf_swin.configuration_vit import PositionResizing
from hf_swin.modeling_resizing import (
    POSITION_RULES,
    SPLINE_DEGREES,
    adapt_channels,
    adapted,
    resize_bias_table,
    resize_patches,
    resize_positions,
)
from hf_swin.modeling_windows import log_offsets

from compare import assert_close, relative_error
from tiny import FAMILIES, HEADS, class_of, config_of, model_of


SQUARES = [((7, 7), (12, 12)), ((14, 14), (24, 24)), ((12, 12), (5, 5)), ((37, 37), (16, 16)), ((3, 3), (1, 1))]
FROM_SQUARES = [*SQUARES, ((7, 7), (5, 9)), ((8, 8), (8, 3))]
GRIDS = [*FROM_SQUARES, ((5, 9), (9, 5)), ((4, 6), (6, 4)), ((2, 11), (7, 3))]
WINDOWS = [((7, 7), (12, 12)), ((6, 6), (12, 12)), ((6, 6), (7, 7)), ((12, 12), (24, 24)), ((12, 12), (7, 7))]
RECTANGLES = [*WINDOWS, ((4, 7), (7, 4)), ((7, 7), (7, 14)), ((3, 8), (5, 5))]


def positions(grid, channels=8):
    return torch.randn(1, grid[0] * grid[1], channels)


def bias_table(window, heads=3):
    return torch.randn((2 * window[0] - 1) * (2 * window[1] - 1), heads)


def test_every_rule_of_the_configs_is_one_of_the_functions():
    assert set(typing.get_args(PositionResizing)) == set(POSITION_RULES)
    for rule in ["bicubic", *SPLINE_DEGREES]:
        assert hf_swin.HfSwinConfig(bias_resizing=rule).bias_resizing == rule
    table = positions((5, 5))
    resized = [resize_positions(table, (5, 5), (7, 7), rule) for rule in POSITION_RULES]
    tables = [resize_bias_table(bias_table((5, 5)), (5, 5), (7, 7), rule) for rule in ["bicubic", *SPLINE_DEGREES]]
    for results in (resized, tables):
        for index, one in enumerate(results):
            assert all(relative_error(one, other) > 1e-3 for other in results[:index]), "two names for one rule"


@pytest.mark.parametrize("old, new", GRIDS)
def test_positions_as_timm(old, new):
    table = positions(old)
    theirs = resample_abs_pos_embed(table, list(new), list(old), num_prefix_tokens=0)
    assert_close(resize_positions(table, old, new, "bicubic_antialias"), theirs)


@pytest.mark.parametrize("old, new", SQUARES)
def test_positions_as_torchvision(old, new):
    state = {"encoder.pos_embedding": torch.cat([torch.zeros(1, 1, 8), positions(old)], dim=1)}
    ours = resize_positions(state["encoder.pos_embedding"][:, 1:], old, new, "bicubic_align_corners")
    theirs = interpolate_embeddings(new[0] * 16, 16, state)["encoder.pos_embedding"][:, 1:]
    assert_close(ours, theirs)


@pytest.mark.parametrize("old, new", GRIDS)
def test_positions_as_google(old, new):
    """vit_jax and big_vision call scipy.ndimage.zoom with factors new/old and order 1."""
    table = positions(old)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    theirs = scipy.ndimage.zoom(table.numpy().reshape(*old, -1), zoom, order=1)
    assert theirs.shape[:2] == new
    theirs = torch.from_numpy(theirs).flatten(0, 1)[None]
    assert_close(resize_positions(table, old, new, "bilinear_align_corners"), theirs)


@pytest.mark.parametrize("name, rule", [("ViT", "bicubic"), ("Dinov2", "bicubic")])
@pytest.mark.parametrize("old, new", FROM_SQUARES)
def test_positions_as_transformers(name, rule, old, new):
    check_against_transformers(name, rule, old, new)


@pytest.mark.parametrize("old, new", FROM_SQUARES)
def test_positions_as_dinov2_with_registers(old, new):
    check_against_transformers("Dinov2WithRegisters", "bicubic_antialias", old, new)


def check_against_transformers(name, rule, old, new):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4}
    config = getattr(transformers, f"{name}Config")(**sizes, image_size=4 * old[0])
    table = torch.randn(1, 1 + old[0] * old[1], 8)
    model = getattr(transformers, f"{name}Model")(config)
    model.embeddings.position_embeddings = torch.nn.Parameter(table)
    tokens = torch.zeros(1, 1 + new[0] * new[1], 8)
    theirs = model.embeddings.interpolate_pos_encoding(tokens, 4 * new[0], 4 * new[1])
    assert_close(resize_positions(table[:, 1:], old, new, rule), theirs[:, 1:])


def cubic_kernel(distance):
    """The convolution kernel of Keys (1981) with a = -0.75, which torch takes for bicubic."""
    x = np.abs(distance)
    near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def dino_axis(old, new):
    """The matrix (new, old) of DINO and DINOv2 along one axis: the scale they pass is (new + 0.1) / old."""
    weights = np.zeros((new, old))
    for row in range(new):
        place = (row + 0.5) * old / (new + 0.1) - 0.5
        for column in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            weights[row, min(max(column, 0), old - 1)] += cubic_kernel(place - column)
    return weights


@pytest.mark.parametrize("old, new", GRIDS)
def test_positions_as_the_original_dino(old, new):
    table = positions(old)
    rows, columns = dino_axis(old[0], new[0]), dino_axis(old[1], new[1])
    theirs = np.einsum("hi,wj,ijc->hwc", rows, columns, table.double().numpy().reshape(*old, -1))
    assert_close(resize_positions(table, old, new, "bicubic_offset"), torch.from_numpy(theirs).flatten(0, 1)[None])


@pytest.mark.parametrize("rule", POSITION_RULES)
def test_positions_keep_their_type_and_their_mistakes_are_named(rule):
    table = positions((4, 4)).bfloat16()
    assert resize_positions(table, (4, 4), (6, 6), rule).dtype == torch.bfloat16
    assert resize_positions(table, (4, 4), (4, 4), rule) is table
    with pytest.raises(ValueError, match=r"16 positions are no grid of \(5, 5\)"):
        resize_positions(table, (5, 5), (6, 6), rule)


@pytest.mark.parametrize("old, new", WINDOWS)
def test_bias_tables_as_microsoft(old, new):
    """timm keeps Microsoft's rule beside its own, for square tables."""
    table = bias_table(old)
    shape = bias_table(new).shape
    theirs = timm_tables.resize_rel_pos_bias_table_simple(table, new, shape)
    assert_close(resize_bias_table(table, old, new, "bicubic"), theirs)


def test_bias_tables_of_rectangles_as_images():
    table = bias_table((3, 5))
    image = table.T.reshape(1, 3, 5, 9)
    theirs = interpolate(image, size=(9, 7), mode="bicubic")[0].flatten(1).T
    assert_close(resize_bias_table(table, (3, 5), (5, 4), "bicubic"), theirs)


@pytest.mark.parametrize("old, new", RECTANGLES)
def test_bias_tables_as_timm(old, new, monkeypatch):
    monkeypatch.setattr(timm_tables, "_USE_SCIPY", False)  # timm's default
    table = bias_table(old)
    theirs = timm_tables.resize_rel_pos_bias_table(table, new, bias_table(new).shape, old)
    assert_close(resize_bias_table(table, old, new, "geometric_linear"), theirs)


def interp2d(x, y, z, kind):
    """What SciPy names as the equal of the function it removed in 1.14, which SimMIM, BEiT and timm call."""
    assert kind == "cubic"
    spline = scipy.interpolate.RectBivariateSpline(x, y, z.T, s=0)
    return lambda new_x, new_y: spline(new_x, new_y).T


@pytest.mark.parametrize("old, new", RECTANGLES)
def test_bias_tables_as_simmim_and_as_timm_with_scipy(old, new, monkeypatch):
    monkeypatch.setattr(timm_tables, "_USE_SCIPY", True)
    monkeypatch.setattr(scipy.interpolate, "interp2d", interp2d)
    table = bias_table(old)
    theirs = timm_tables.resize_rel_pos_bias_table(table, new, bias_table(new).shape, old)
    assert_close(resize_bias_table(table, old, new, "geometric_cubic"), theirs)


@pytest.mark.parametrize("rule", ["bicubic", *SPLINE_DEGREES])
def test_bias_tables_keep_what_does_not_change_and_their_mistakes_are_named(rule):
    table = bias_table((4, 4)).half()
    assert resize_bias_table(table, (4, 4), (4, 4), rule) is table
    resized = resize_bias_table(table, (4, 4), (6, 5), rule)
    assert resized.shape == (99, 3) and resized.dtype == torch.float16 and resized.is_contiguous()
    constant = resize_bias_table(torch.full((49, 2), 3.0), (4, 4), (7, 7), rule)
    assert_close(constant, torch.full((169, 2), 3.0), 1e-6)
    with pytest.raises(ValueError, match=r"49 offsets is not of a window of \(5, 5\)"):
        resize_bias_table(table, (5, 5), (6, 6), rule)


@pytest.mark.parametrize("rule, side, needed", [("geometric_cubic", 2, 3), ("geometric_linear", 1, 2)])
def test_a_window_too_small_for_a_spline_is_named(rule, side, needed):
    with pytest.raises(ValueError, match=f"needs a window of {needed} tokens a side, got {side}; set bias_resizing"):
        resize_bias_table(bias_table((side, side)), (side, side), (7, 7), rule)


@pytest.mark.parametrize("old, new", [(16, 14), (16, 8), (8, 16), (14, 16), (4, 2), ((8, 4), (4, 8)), ((4, 4), (4, 7))])
def test_patches_as_timm(old, new):
    old, new = ((size, size) if isinstance(size, int) else size for size in (old, new))
    weight = torch.randn(6, 3, *old)
    assert_close(resize_patches(weight, new), resample_patch_embed(weight, list(new)))
    assert resize_patches(weight, old) is weight and resize_patches(weight.half(), new).dtype == torch.float16


def test_enlarged_patches_give_the_same_tokens_on_an_enlarged_patch():
    weight, image = torch.randn(5, 3, 8, 8), torch.randn(1, 3, 8, 8)
    enlarged = interpolate(image, size=(12, 20), mode="bicubic", antialias=True)
    assert_close(conv2d(enlarged, resize_patches(weight, (12, 20))), conv2d(image, weight), 1e-4)


@pytest.mark.parametrize("old, new", [(3, 1), (3, 2), (3, 4), (3, 11), (1, 3), (4, 3), (3, 3)])
def test_channels_as_timm(old, new):
    weight = torch.randn(6, old, 4, 4)
    assert_close(adapt_channels(weight, new), adapt_input_conv(new, weight, base_chans=old), 1e-6)
    assert (adapt_channels(weight, new) is weight) == (old == new)


def test_a_grey_image_gives_what_it_gave_as_rgb():
    weight, grey = torch.randn(5, 3, 4, 4), torch.randn(1, 1, 8, 8)
    coloured = conv2d(grey.expand(1, 3, 8, 8), weight)
    assert_close(conv2d(grey, adapt_channels(weight, 1)), coloured)
    assert_close(conv2d(grey.expand(1, 6, 8, 8), adapt_channels(weight, 6)), coloured)
    with pytest.raises(ValueError, match="cannot be adapted to 0 channels"):
        adapt_channels(weight, 0)
    with pytest.raises(ValueError, match=r"\(5, 48\) cannot be adapted to 1 channels"):
        adapt_channels(torch.randn(5, 48), 1)


LARGER = {
    "hf_vit": {"image_size": (48, 32), "num_channels": 4},
    "hf_swin": {"image_size": 128, "window_size": [[8, 5], 7], "use_absolute_embeddings": True, "num_channels": 1},
    "hf_swin_v2": {"image_size": 128, "window_size": 8, "use_absolute_embeddings": True, "num_channels": 1},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_adapted_tensors_fit_a_model_of_the_new_sizes(family, head):
    numbers = dict(LARGER[family])
    if head == "ForMaskedImageModeling":
        del numbers["num_channels"]
    same = {name: numbers[name] for name in ("use_absolute_embeddings",) if name in numbers}
    old, new = config_of(family, **same), config_of(family, **numbers)
    state = model_of(family, head, **same).state_dict()
    tensors = adapted(state, old, new)
    class_of(family, head)(new).load_state_dict(tensors, strict=True)
    ends = ("position_embeddings", "relative_position_bias_table", "patch_embeddings.projection.weight")
    changed = {key for key in state if tensors[key] is not state[key]}
    expected = {key for key in state if key.endswith(ends)}
    assert changed == {key for key in expected if not (head == "ForMaskedImageModeling" and key.endswith(ends[2]))}
    assert all(tensor is state[key] for key, tensor in adapted(state, old, old).items())


def test_tokens_before_the_patches_keep_their_positions():
    old, new = (config_of("hf_vit", use_distillation_token=True, image_size=size) for size in (32, 64))
    table = model_of("hf_vit", use_distillation_token=True).vit.embeddings.position_embeddings
    resized = adapted({"vit.embeddings.position_embeddings": table}, old, new)["vit.embeddings.position_embeddings"]
    assert resized.shape == (1, 66, 32) and torch.equal(resized[:, :2], table[:, :2]) and not resized.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("change", [{"num_channels": 1}, {"patch_size": 2}])
def test_a_decoder_of_other_pixels_is_refused(family, change):
    old = config_of(family)
    new = config_of(family, **change, encoder_stride=4 if "patch_size" in change else 8)
    with pytest.raises(ValueError, match="no rule makes a masked-image decoder of 192 outputs one of"):
        adapted(model_of(family, "ForMaskedImageModeling").state_dict(), old, new)


@pytest.mark.parametrize(
    "image_size, window_size, expected",
    [(192, 12, [12, 12, 12, 6]), (224, 14, [14, 14, 14, 7]), (384, 12, 12), (384, 24, [24, 24, 24, 12]), (224, 7, 7)],
)
@pytest.mark.parametrize("small_input", ["square", "clamp"])
def test_swin_windows_are_those_of_microsofts_files(image_size, window_size, expected, small_input):
    old = hf_swin.HfSwinConfig(image_size=448, window_size=9, small_input=small_input)
    new = hf_swin.HfSwinConfig(image_size=image_size, window_size=window_size, small_input=small_input)
    assert fitted(old, new).window_size == expected


def test_swin_windows_on_rectangles_where_padded_and_where_nothing_is_new():
    old = hf_swin.HfSwinConfig()
    wide = {"image_size": (112, 448), "window_size": 8}
    assert fitted(old, hf_swin.HfSwinConfig(**wide)).window_size == [8, 8, [7, 8], [4, 8]]
    assert fitted(old, hf_swin.HfSwinConfig(**wide, small_input="square")).window_size == [8, 8, 7, 4]
    assert fitted(old, hf_swin.HfSwinConfig(**wide, small_input="pad")).window_size == 8
    assert fitted(old, hf_swin.HfSwinConfig(**wide, always_partition=True)).window_size == 8
    assert fitted(old, hf_swin.HfSwinConfig(image_size=112)).window_size == 7  # no new window, no new table
    given = hf_swin.HfSwinConfig(image_size=112, window_size=[8, 8, 8, 8])
    assert fitted(old, given).window_size == [8, 8, 8, 8]


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ((192, 12, None), (256, 16, None), [12, 12, 12, 6]),  # Microsoft's 12to16
        ((192, 12, None), (384, 24, None), [12, 12, 12, 6]),  # Microsoft's 12to24
        ((256, 16, None), (512, 16, None), [0, 0, 0, 8]),  # the last stage is no longer clamped
        ((256, 16, None), (128, 16, None), [0, 0, 16, 8]),
        ((256, 8, None), (512, 8, None), [0, 0, 0, 0]),
        ((256, 16, [12, 12, 12, 6]), (384, 24, None), [12, 12, 12, 6]),  # what the file says
        ((256, 16, None), (384, 24, [4, 4, 4, 4]), [4, 4, 4, 4]),  # what the user says
        ((256, 16, None), (256, [[16, 8]] * 4, None), [16, 16, 16, 0]),
        ((256, [[16, 8]] * 4, None), (256, 8, None), [[16, 8], [16, 8], [16, 8], 0]),
    ],
)
def test_swin_v2_remembers_the_windows_of_its_weights(old, new, expected):
    configs = [hf_swin.HfSwinV2Config(image_size=i, window_size=w, pretrained_window_sizes=p) for i, w, p in (old, new)]
    before = configs[1].to_dict()
    fit = fitted(*configs)
    assert list(fit.pretrained_window_sizes) == expected and configs[1].to_dict() == before
    for one, other in zip(fit.stage_specs(), configs[0].stage_specs(), strict=True):
        if new[2] is None:
            assert one.blocks[0].reference_window == other.blocks[0].reference_window


def test_swin_v2_measures_unchanged_offsets_as_before():
    cpu = torch.device("cpu")
    for old, new in [((12, 12), (16, 16)), ((8, 4), (16, 7))]:
        grown = log_offsets(new, old, cpu).reshape(2 * new[0] - 1, 2 * new[1] - 1, 2)
        middle = grown[new[0] - old[0] : new[0] + old[0] - 1, new[1] - old[1] : new[1] + old[1] - 1]
        assert torch.equal(middle.reshape(-1, 2), log_offsets(old, old, cpu))
        unset = log_offsets(new, new, cpu).reshape(grown.shape)
        assert relative_error(grown, unset) > 1e-2, "the reference window changes nothing"


def test_a_decoder_stride_that_followed_from_the_patch_follows_the_new_one():
    assert fitted(config_of("hf_vit"), config_of("hf_vit", patch_size=4)).encoder_stride == 4
    assert fitted(config_of("hf_swin"), config_of("hf_swin", patch_size=2)).encoder_stride == 4
    assert fitted(config_of("hf_swin"), config_of("hf_swin", patch_size=2, encoder_stride=16)).encoder_stride == 16
    assert fitted(config_of("hf_vit"), config_of("hf_vit", image_size=64)).encoder_stride == 8
