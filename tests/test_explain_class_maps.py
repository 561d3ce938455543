"""Class maps against gradients by hand, pytorch-grad-cam and captum."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_swin.errors import UserError
from hf_swin.explain import class_map, named_blocks, reshape_transform

from tiny import FAMILIES, model_of, pixels


# Images (height, width), and the grids that the last block reads: a Swin pads, a ViT resizes its positions.
SIZES = {
    "hf_vit": {(32, 32): (4, 4), (24, 40): (3, 5), (30, 41): (4, 6)},
    "hf_swin": {(64, 64): (8, 8), (60, 52): (8, 7), (12, 8): (2, 1)},
    "hf_swin_v2": {(64, 64): (8, 8), (60, 52): (8, 7), (12, 8): (2, 1)},
}
CASES = [(family, size) for family in FAMILIES for size in SIZES[family]]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_case = pytest.mark.parametrize(("family", "size"), CASES)


def by_hand(model, image, label, block, grid):
    """Grad-CAM of what a block reads, on the model's own graph."""
    read = []

    def keep(_, args):
        args[0].retain_grad()
        read.append(args[0])

    hook = list(named_blocks(model).values())[block].register_forward_pre_hook(keep)
    model(image).logits[0, label].backward()
    hook.remove()
    patches = grid[0] * grid[1]
    tokens, gradient = (x[0].detach().reshape(-1, x.shape[-1])[-patches:] for x in (read[0], read[0].grad))
    heat = (tokens * gradient.sum(0) / patches).sum(-1)
    return heat.clamp(min=0).reshape(grid).numpy()


def assert_equal_maps(ours, theirs):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(theirs.max(), 1e-3))


@every_case
def test_class_maps_are_the_gradients_by_hand(family, size):
    model, image = model_of(family), pixels(*size, batch=1)
    grid = SIZES[family][size]
    maps = [class_map(model, image, label) for label in range(5)]
    for label, heat in enumerate(maps):
        assert heat.dtype == np.float32
        assert_equal_maps(heat, by_hand(model, image, label, -1, grid))
    assert max(heat.max() for heat in maps) > 1e-3  # a map of zeros would be equal to any other
    with torch.no_grad():
        likeliest = model(image).logits[0].argmax().item()
    np.testing.assert_array_equal(class_map(model, image), maps[likeliest])


@every_family
def test_any_block_can_be_asked(family):
    model, size = model_of(family), next(iter(SIZES[family]))
    image, count = pixels(*size, batch=1), len(named_blocks(model))
    for block in range(count):
        grid = (16, 16) if family != "hf_vit" and block < 2 else SIZES[family][size]
        heat = class_map(model, image, 1, block)
        assert_equal_maps(heat, by_hand(model, image, 1, block, grid))
        np.testing.assert_array_equal(class_map(model, image, 1, block - count), heat)


@pytest.mark.parametrize(
    "overrides",
    [
        {"num_register_tokens": 2},
        {"use_distillation_token": True, "use_distillation_head": True},
        {"use_class_token": False, "pooling": "mean"},
        {"use_class_token": False, "pooling": "mean", "norm_after_pooling": True, "num_register_tokens": 1},
        {"pooling": "class_and_mean"},
    ],
)
def test_tokens_before_the_grid_are_left_out(overrides):
    model, image = model_of("hf_vit", **overrides), pixels(24, 40, batch=1)
    for label in range(5):
        assert_equal_maps(class_map(model, image, label), by_hand(model, image, label, -1, (3, 5)))


class Logits(nn.Module):
    """A model that answers with a tensor, as other people's tools want it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image).logits


@every_case
def test_pytorch_grad_cam_finds_the_same(family, size):
    """Its layer is the one whose answer the last block reads, and it stretches each map from 0 to 1."""
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")

    class OnTheGrid(pytorch_grad_cam.GradCAM):
        def get_target_width_height(self, input_tensor):
            return None  # it would resize to the image

    model, image = model_of(family), pixels(*size, batch=1)
    layer = list(named_blocks(model).values())[-2]
    with OnTheGrid(Logits(model), [layer], reshape_transform=reshape_transform(model, size)) as cam:
        for label in range(5):
            theirs = cam(image, [targets.ClassifierOutputTarget(label)])[0]
            ours = class_map(model, image, label)
            ours = ours - ours.min()
            np.testing.assert_allclose(ours / (ours.max() + 1e-7), theirs, atol=1e-3)


@every_case
def test_captum_finds_the_same(family, size):
    """captum takes a layer's answer as it is, so the tokens go through a module as (B, C, H, W) and back."""
    captum = pytest.importorskip("captum.attr")
    model, image = model_of(family), pixels(*size, batch=1)
    on_grid, seen = reshape_transform(model, size), nn.Identity()

    def by_way_of_the_grid(_, args, tokens):
        if tokens.ndim == 4:
            return seen(on_grid(tokens)).permute(0, 2, 3, 1)
        return torch.cat([tokens[:, :1], seen(on_grid(tokens)).flatten(2).transpose(1, 2)], dim=1)

    maps = [class_map(model, image, label) for label in range(5)]
    list(named_blocks(model).values())[-2].register_forward_hook(by_way_of_the_grid)
    for label, ours in enumerate(maps):
        theirs = captum.LayerGradCam(Logits(model), seen).attribute(image, label, relu_attributions=True)
        assert_equal_maps(ours, theirs[0, 0].detach().numpy())


def test_reshape_transform_of_a_vit_puts_each_token_on_its_place():
    model = model_of("hf_vit", num_register_tokens=2)
    tokens = torch.arange(3 + 15).float()[None, :, None].expand(2, -1, 7)
    on_grid = reshape_transform(model, (24, 40))(tokens)
    assert on_grid.shape == (2, 7, 3, 5)
    assert on_grid[1, 6].tolist() == [[3, 4, 5, 6, 7], [8, 9, 10, 11, 12], [13, 14, 15, 16, 17]]
    assert reshape_transform(model, (17, 40))(tokens).shape == (2, 7, 3, 5)  # a last row of patches is filled up
    square = torch.zeros(2, 3 + 16, 7)
    assert reshape_transform(model)(square).shape == reshape_transform(model, 32)(square).shape == (2, 7, 4, 4)
    with pytest.raises(UserError, match="18 tokens are not 3 and a grid of 4x4: give the image_size"):
        reshape_transform(model)(tokens)
    with pytest.raises(UserError, match="19 tokens are not 3 and a grid of 3x5"):
        reshape_transform(model, (24, 40))(square)


@pytest.mark.parametrize("family", ["hf_swin", "hf_swin_v2"])
def test_reshape_transform_of_a_swin_takes_any_grid(family):
    tokens = torch.randn(2, 5, 3, 7)
    on_grid = reshape_transform(model_of(family))(tokens)
    assert on_grid.shape == (2, 7, 5, 3)
    assert on_grid[1, 4, 3, 2] == tokens[1, 3, 2, 4]
