"""Attention in image space and rollout, against windows cut by loops and products written by hand."""

import numpy as np
import pytest
import torch

from hf_swin.errors import UserError
from hf_swin.explain import AttentionMap, attention_maps, class_map, named_blocks, reshape_transform, rollout

from tiny import FAMILIES, STOCK, model_of, pixels


SWINS = ["hf_swin", "hf_swin_v2"]
# For each of the two stages of a tiny Swin: the grid, the window, and the shift of its second block, by hand.
CUTS = {
    "fitting": ((64, 64), {}, [((16, 16), (4, 4), (2, 2)), ((8, 8), (4, 4), (2, 2))]),
    "padded": ((60, 52), {}, [((15, 13), (4, 4), (2, 2)), ((8, 7), (4, 4), (2, 2))]),
    "padding hidden": ((60, 52), {"mask_padding": True}, [((15, 13), (4, 4), (2, 2)), ((8, 7), (4, 4), (2, 2))]),
    "rectangle": ((64, 32), {}, [((16, 8), (4, 4), (2, 2)), ((8, 4), (4, 4), (2, 0))]),
    "patches cut off": ((30, 41), {}, [((8, 11), (4, 4), (2, 2)), ((4, 6), (4, 4), (0, 2))]),
    "smaller than a window": ((12, 8), {}, [((3, 2), (3, 2), (0, 0)), ((2, 1), (2, 1), (0, 0))]),
    "smaller, and padded": ((12, 8), {"small_input": "pad"}, [((3, 2), (4, 4), (0, 0)), ((2, 1), (4, 4), (0, 0))]),
    "smaller one way": ((8, 40), {}, [((2, 10), (2, 4), (0, 2)), ((1, 5), (1, 4), (0, 2))]),
    "shifted all the same": (
        (16, 12),
        {"always_partition": True},
        [((4, 3), (4, 4), (2, 2)), ((2, 2), (4, 4), (2, 2))],
    ),
}
VITS = {
    "class": {},
    "class and registers": {"num_register_tokens": 2},
    "class and distillation": {"use_distillation_token": True, "use_distillation_head": True},
    "none": {"use_class_token": False, "pooling": "mean"},
    "registers alone": {"use_class_token": False, "pooling": "mean", "num_register_tokens": 2},
}
every_cut = pytest.mark.parametrize("cut", CUTS)
every_swin = pytest.mark.parametrize("family", SWINS)
every_family = pytest.mark.parametrize("family", FAMILIES)
every_vit = pytest.mark.parametrize("variant", VITS)


def geometries(stages):
    """Returns (grid, window, shift) of every block: the first of a stage is not shifted."""
    return [(grid, window, one) for grid, window, shift in stages for one in ((0, 0), shift)]


def cut_by_hand(grid, window, shift):
    """Returns the windows of a grid, each a list of (token or -1, region): regions are what the roll brought there."""
    height, width = (size + -size % side for size, side in zip(grid, window, strict=True))
    windows = []
    for top in range(0, height, window[0]):
        for left in range(0, width, window[1]):
            places = []
            for y in range(top + shift[0], top + shift[0] + window[0]):
                for x in range(left + shift[1], left + shift[1] + window[1]):
                    row, column = y % height, x % width
                    real = row < grid[0] and column < grid[1]
                    places.append((row * grid[1] + column if real else -1, (y >= height, x >= width)))
            windows.append(places)
    return windows


def weights_of(model, image):
    """The model's own weights, each (N, A, T, T)."""
    with torch.no_grad():
        attentions = model(image, output_attentions=True).attentions
    return [weights.numpy().reshape(-1, *weights.shape[-3:]) for weights in attentions]


def image_of(family):
    return pixels(32 if family == "hf_vit" else 64, batch=1)


# attention


@every_cut
@every_swin
def test_windows_hold_the_tokens_that_loops_put_there(family, cut):
    size, overrides, stages = CUTS[cut]
    model = model_of(family, **overrides)
    maps = attention_maps(model, pixels(*size, batch=1))
    assert [map_.name for map_ in maps] == [f"stage {stage}, block {block}" for stage in (1, 2) for block in (1, 2)]
    for map_, (grid, window, shift) in zip(maps, geometries(stages), strict=True):
        assert (map_.grid, map_.prefix, map_.class_token) == (grid, 0, False)
        assert map_.layout == (grid, window, shift)
        assert map_.stride == ((4, 4) if map_.name.startswith("stage 1") else (8, 8))
        by_hand = [[token for token, _ in places] for places in cut_by_hand(grid, window, shift)]
        assert map_.tokens.tolist() == by_hand
        assert sorted(map_.tokens[map_.tokens >= 0]) == list(range(grid[0] * grid[1]))


@every_cut
@every_swin
def test_a_token_attends_within_its_window_and_region_by_the_models_own_weights(family, cut):
    size, overrides, stages = CUTS[cut]
    model, image = model_of(family, **overrides), pixels(*size, batch=1)
    maps = attention_maps(model, image)
    for map_, weights, geometry in zip(maps, weights_of(model, image), geometries(stages), strict=True):
        assert map_.weights.dtype == np.float32 and map_.weights.shape == weights.shape
        np.testing.assert_allclose(map_.weights.sum(-1), 1, atol=1e-5)
        for number, places in enumerate(cut_by_hand(*geometry)):
            for query in (0, len(places) // 2, len(places) - 1):
                token, region = places[query]
                if token < 0:
                    continue
                expected = np.zeros((weights.shape[1], map_.grid[0] * map_.grid[1]), np.float32)
                for key, (other, its_region) in enumerate(places):
                    given = weights[number, :, query, key]
                    hidden = overrides.get("mask_padding") and other < 0
                    if its_region != region or hidden:
                        assert given.max() < 1e-6
                    if other >= 0:
                        expected[:, other] = given
                attended = map_.attended(token)
                assert attended.shape == (weights.shape[1], *map_.grid)
                np.testing.assert_allclose(attended.reshape(expected.shape), expected, atol=1e-6)


@every_vit
def test_a_vit_has_one_window_of_all_tokens(variant):
    model, image = model_of("hf_vit", **VITS[variant]), pixels(24, 40, batch=1)
    prefix = {"class": 1, "class and registers": 3, "class and distillation": 2, "none": 0, "registers alone": 2}[
        variant
    ]
    maps = attention_maps(model, image)
    assert [map_.name for map_ in maps] == ["block 1", "block 2", "block 3"]
    for map_, weights in zip(maps, weights_of(model, image), strict=True):
        assert (map_.grid, map_.prefix, map_.layout, map_.stride) == ((3, 5), prefix, None, (8, 8))
        assert map_.class_token == variant.startswith("class")
        assert map_.tokens.tolist() == [[*range(15, 15 + prefix), *range(15)]]
        np.testing.assert_allclose(map_.weights.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(map_.weights, weights, atol=1e-6)
        for token, place in [(0, prefix), (14, prefix + 14), *((15 + one, one) for one in range(prefix))]:
            by_hand = weights[0, :, place, prefix:].reshape(-1, 3, 5)
            np.testing.assert_allclose(map_.attended(token), by_hand, atol=1e-6)
        by_hand = weights[0].mean(1)[:, prefix:].reshape(-1, 3, 5)
        np.testing.assert_allclose(map_.received(), by_hand, atol=1e-6)


@pytest.mark.parametrize(("family", "token"), [("hf_vit", 17), ("hf_vit", -1), ("hf_swin", 256), ("hf_swin_v2", -1)])
def test_a_token_that_does_not_exist_is_an_error(family, token):
    map_ = attention_maps(model_of(family), image_of(family))[0]
    count = 17 if family == "hf_vit" else 256
    with pytest.raises(UserError, match=rf"block 1 has no token {token}: its {count} tokens are numbered from 0"):
        map_.attended(token)
    assert map_.attended(count - 1).shape[1:] == map_.grid


def test_received_is_the_mean_over_the_real_tokens_of_a_window():
    weights = np.array([[[0.5, 0.25, 0.25], [0.125, 0.625, 0.25], [1, 0, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]])
    map_ = AttentionMap("block 1", (1, 3), 0, np.float32(weights)[:, None], np.array([[0, 2, -1], [-1, -1, 1]]))
    # The third query of the first window is padding; of the second window only the third is real.
    np.testing.assert_allclose(map_.received(), [[[0.3125, 0, 0.4375]]])


@every_swin
def test_what_all_tokens_receive_is_what_their_windows_give(family):
    for map_ in attention_maps(model_of(family), image_of(family)):
        np.testing.assert_allclose(map_.received().sum((1, 2)), map_.weights.shape[0], rtol=1e-5)
        by_hand = np.mean([map_.attended(token) for token in map_.tokens[1]], axis=0)
        rows, columns = np.unravel_index(map_.tokens[1], map_.grid)
        np.testing.assert_allclose(map_.received()[:, rows, columns], by_hand[:, rows, columns], atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (60, 52)])
@every_family
def test_only_what_a_token_attends_to_changes_it(family, size):
    """The block itself says so: one token of what it reads is changed, and its answers are compared."""
    model, image = model_of(family), pixels(*size, batch=1)
    for map_, block in zip(attention_maps(model, image)[:2], named_blocks(model).values(), strict=False):
        count = map_.grid[0] * map_.grid[1]
        prefix = map_.prefix
        shape = (1, prefix + count, 32) if family == "hf_vit" else (1, *map_.grid, 24)
        x = read_by(model, block, image)
        assert x.shape == shape
        attended = np.stack([map_.attended(token).max(0).ravel() for token in range(count)])  # (query, key)
        for token in range(0, count, 7):
            changed = x.clone()
            changed.reshape(1, -1, shape[-1])[0, prefix + token] += torch.linspace(-1, 1, shape[-1])
            with torch.no_grad():
                difference = (block(changed) - block(x)).abs().reshape(-1, shape[-1])[prefix:].amax(-1).numpy()
            elsewhere = np.arange(count) != token
            assert (difference[(attended[:, token] == 0) & elsewhere] < 1e-6).all()
            assert (difference[(attended[:, token] > 1e-2) & elsewhere] > 1e-6).all()


def read_by(model, block, image):
    read = []
    hook = block.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        model(image)
    hook.remove()
    return read[0]


@every_swin
def test_pixels_of_another_window_do_not_reach_the_first_block(family):
    model, image = model_of(family), image_of(family)
    changed = image.clone()
    changed[:, :, 20:24, 40:44] += 1  # the token in row 5 and column 10: of the window of rows 4 to 7, columns 8 to 11
    first, second = list(named_blocks(model).values())[:2]
    difference = (read_by(model, second, changed) - read_by(model, second, image)).abs().amax(-1)[0].numpy()
    assert first.attention.spec.window == (4, 4)
    assert (difference[4:8, 8:12] > 1e-6).all()
    difference[4:8, 8:12] = 0
    assert (difference == 0).all()


# rollout


def two_blocks(class_token):
    """One token before a grid of 1x2; two heads, whose means and means with the identity are in the test."""
    tokens = np.array([[2, 0, 1]])
    first = [[[0, 1, 0], [0, 1, 0], [0, 0, 1]], [[0, 0, 1], [0, 1, 0], [0, 0, 1]]]
    second = [[[1, 0, 0], [1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 1]]]
    return [
        AttentionMap("block", (1, 2), 1, np.float32(weights)[None], tokens, None, class_token)
        for weights in (first, second)
    ]


def test_rollout_multiplies_the_later_block_by_the_earlier_one():
    # First block: ½ ¼ ¼ / 0 1 0 / 0 0 1; second: ¾ ¼ 0 / ½ ½ 0 / 0 0 1, the class token first.
    # Class token: ¾ · (½ ¼ ¼) + ¼ · (0 1 0). Patches: ½ · (½ ¼ ¼) + ½ · (0 1 0) and (0 0 1).
    np.testing.assert_allclose(rollout(two_blocks(class_token=True)), [[0.4375, 0.1875]])
    np.testing.assert_allclose(rollout(two_blocks(class_token=False)), [[(0.625 + 0) / 2, (0.125 + 1) / 2]])


@every_vit
def test_rollout_of_a_vit(variant):
    model, image = model_of("hf_vit", **VITS[variant]), pixels(24, 40, batch=1)
    prefix = attention_maps(model, image)[0].prefix
    first, second, third = (
        0.5 * weights[0].astype(np.float64).mean(0) + 0.5 * np.eye(prefix + 15) for weights in weights_of(model, image)
    )
    reached = third @ second @ first
    by_hand = reached[0, prefix:] if variant.startswith("class") else reached[prefix:, prefix:].mean(0)
    np.testing.assert_allclose(rollout(attention_maps(model, image)), by_hand.reshape(3, 5), rtol=1e-4)


@every_swin
def test_rollout_of_windows_is_an_error(family):
    with pytest.raises(UserError, match="for windows take a class map"):
        rollout(attention_maps(model_of(family), image_of(family)))
    with pytest.raises(UserError, match="rollout"):
        rollout([])


# errors


def test_a_model_of_another_package_is_an_error():
    model = STOCK[1].build()
    for explain in (attention_maps, class_map):
        with pytest.raises(UserError, match="ViTForImageClassification is no model of hf_swin"):
            explain(model, pixels(32, batch=1))
    with pytest.raises(UserError, match="is no model of hf_swin"):
        reshape_transform(model)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 3, 32, 32), (0, 3, 32, 32), (1, 1, 32, 32)])
@every_family
def test_what_is_not_one_image_is_an_error(family, shape):
    match = "does not take this image" if shape[0] == 1 else "not one image"
    for explain in (attention_maps, class_map):
        with pytest.raises(UserError, match=match):
            explain(model_of(family), torch.zeros(shape))


@pytest.mark.parametrize("head", ["Model", "Backbone", "ForMaskedImageModeling"])
@every_family
def test_every_head_has_attention_and_a_class_map_needs_a_classifier(family, head):
    model, image = model_of(family, head), image_of(family)
    maps = attention_maps(model, image)
    assert [map_.name for map_ in maps] == list(named_blocks(model))
    for map_, weights in zip(maps, weights_of(model, image), strict=True):
        np.testing.assert_allclose(map_.weights, weights, atol=1e-6)
    with pytest.raises(UserError, match="has no classifier to explain"):
        class_map(model, image)


@every_family
def test_a_label_or_block_that_does_not_exist_is_an_error(family):
    model, image = model_of(family), image_of(family)
    count = len(named_blocks(model))
    for label in (-1, 5):
        with pytest.raises(UserError, match=rf"there is no label {label}: the model's 5 are numbered from 0"):
            class_map(model, image, label)
    for block in (count, -count - 1):
        with pytest.raises(UserError, match=rf"there is no block {block}: the model's {count}"):
            class_map(model, image, block=block)
