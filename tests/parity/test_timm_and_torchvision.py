"""The same weights, moved by name, give the numbers of timm and of torchvision: logits, maps and gradients."""

import pytest
import timm
import torch
import torchvision

from hf_swin.conversion import formats
from hf_swin.conversion.keymap import convert

from compare import assert_close, relative_error
from tiny import class_of, config_of, pixels, shaken


def timm_swin(version: int, size: tuple[int, int]):
    build = {1: timm.models.SwinTransformer, 2: timm.models.SwinTransformerV2}[version]
    names = {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 24, "window_size": 4, "num_classes": 5}
    return shaken(build(img_size=size, strict_img_size=False, **names))


def torchvision_swin(version: int):
    stage = torchvision.models.swin_transformer
    block, merging = {
        1: (stage.SwinTransformerBlock, stage.PatchMerging),
        2: (stage.SwinTransformerBlockV2, stage.PatchMergingV2),
    }[version]
    sizes = {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return shaken(stage.SwinTransformer(**sizes, num_classes=5, block=block, downsample_layer=merging))


def ours_with(format: str, theirs: torch.nn.Module, **hints):
    """Our classifier with the weights of theirs, through the table and the config of their format."""
    module, state = formats.named(format), theirs.state_dict()
    config = module.config(state, hints)
    model, info = class_of(module.FAMILY, "ForImageClassification").from_pretrained(
        None, config=config, state_dict=convert(state, module.rules(config)), output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return model.eval()


def assert_same_numbers(ours, theirs, size, name):
    gradients = []
    for run in (lambda x: ours(x).logits, theirs):
        pixel_values = pixels(*size).requires_grad_()
        logits = run(pixel_values)
        gradients.append((logits.detach(), torch.autograd.grad((logits * torch.arange(5.0)).sum(), pixel_values)[0]))
    assert_close(gradients[0][0], gradients[1][0], what=f"{name} {size} logits")
    assert_close(gradients[0][1], gradients[1][1], what=f"{name} {size} gradient")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [(64, 64), (32, 64), (16, 32)])
@pytest.mark.parametrize("version", [1, 2])
def test_swin_equals_timm(version, size, implementation):
    format = {1: "timm_swin", 2: "timm_swin_v2"}[version]
    theirs = timm_swin(version, size)
    # timm shrinks the table of a stage that is smaller than the window; per-stage windows say so here
    windows = [[min(4, size[0] // stride), min(4, size[1] // stride)] for stride in (4, 8)]
    ours = ours_with(format, theirs, image_size=list(size), window_size=windows)
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, size, f"timm v{version}")
    maps = ours(pixels(*size), output_hidden_states=True).reshaped_hidden_states
    their_maps = theirs.forward_intermediates(pixels(*size), intermediates_only=True)
    assert_close(maps[-1], their_maps[-1], what="last stage")


def test_timm_rolls_before_it_pads_and_so_leaks_across_the_image():
    """A named difference (D3): where padding is needed timm shifts first; ours follows the original detection code."""
    theirs = timm_swin(1, (72, 72))
    ours = ours_with("timm_swin", theirs, image_size=72)
    with torch.no_grad():
        assert relative_error(ours(pixels(72)).logits, theirs(pixels(72))) > 1e-4


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [(64, 64), (72, 104), (32, 96), (16, 16), (8, 40)])
@pytest.mark.parametrize("version", [1, 2])
def test_swin_equals_torchvision(version, size, implementation):
    theirs = torchvision_swin(version)
    ours = ours_with({1: "torchvision_swin", 2: "torchvision_swin_v2"}[version], theirs)
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, size, f"torchvision v{version}")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_vit_equals_timm(implementation):
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2, "num_classes": 5}
    theirs = shaken(timm.models.VisionTransformer(img_size=32, patch_size=8, **sizes))
    ours = ours_with("timm_vit", theirs, num_attention_heads=4)
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, (32, 32), "timm ViT")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_vit_equals_torchvision(implementation):
    theirs = shaken(
        torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5
        )
    )
    ours = ours_with("torchvision_vit", theirs, num_attention_heads=4)
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, (32, 32), "torchvision ViT")


@pytest.mark.parametrize("family", ["deit3", "distilled", "registers"])
def test_variants_of_vit_equal_timm(family):
    """LayerScale and no position for the class token (DeiT-III), a second token and head (DeiT), registers (DINOv2)."""
    common = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 32,
        "depth": 3,
        "num_heads": 4,
        "mlp_ratio": 2,
        "num_classes": 5,
    }
    if family == "deit3":
        theirs = timm.models.VisionTransformer(**common, no_embed_class=True, init_values=1e-4)
    elif family == "distilled":
        theirs = timm.models.deit.VisionTransformerDistilled(**common)
    else:
        # timm's reg4 layout: registers between the class token and the patches, positions for all but them
        theirs = timm.models.VisionTransformer(**common, reg_tokens=4, no_embed_class=True, init_values=1.0)
    format = "timm_vit" if family == "distilled" else "timm_vit_no_class_position"
    ours = ours_with(format, shaken(theirs), num_attention_heads=4)
    assert_same_numbers(ours, theirs, (32, 32), family)


def test_published_sizes_have_the_published_parameter_counts():
    """Counted by the publishers' own classes; see the atlas, section 11."""
    published = {
        ("hf_vit", "tiny"): 5_717_416,
        ("hf_vit", "small"): 22_050_664,
        ("hf_vit", "base"): 86_567_656,
        ("hf_vit", "large"): 304_326_632,
        ("hf_vit", "huge"): 632_045_800,
        ("hf_swin", "tiny"): 28_288_354,
        ("hf_swin", "small"): 49_606_258,
        ("hf_swin", "base"): 87_768_224,
        ("hf_swin", "large"): 196_532_476,
        ("hf_swin_v2", "tiny"): 28_347_154,
        ("hf_swin_v2", "small"): 49_728_418,
        ("hf_swin_v2", "base"): 87_918_816,
        ("hf_swin_v2", "large"): 196_739_932,
    }
    for (family, size), count in published.items():
        with torch.device("meta"):
            config = type(config_of(family)).preset(size, num_labels=1000)
            model = class_of(family, "ForImageClassification")(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == count, (family, size)
