"""The same weights, moved by name, give the numbers of timm and of torchvision: logits, maps and gradients."""

import re

import pytest
import timm
import torch
import torchvision

from compare import assert_close, relative_error
from tiny import class_of, config_of, pixels, shaken


def renamed(theirs: dict[str, torch.Tensor], prefix: str, rules: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """Names tensors as ours are named and splits the fused projections; the real tables come with conversion."""
    ours = {}
    for key, tensor in theirs.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        if "qkv" in key:
            for name, part in zip("qkv", tensor.chunk(3), strict=True):
                ours[key.replace("qkv", f"{name}_proj")] = part
        else:
            ours[key] = tensor
    return {key if key.startswith("classifier") else f"{prefix}.{key}": tensor for key, tensor in ours.items()}


BLOCK = [
    (r"(?<!embeddings)\.norm1\.", ".attention_norm."),
    (r"\.norm2\.", ".mlp_norm."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.cpb_mlp\.0\.", ".attention.continuous_position_bias.fc1."),
    (r"\.attn\.cpb_mlp\.2\.", ".attention.continuous_position_bias.fc2."),
    (r"\.attn\.q_bias", ".attention.q_proj.bias"),
    (r"\.attn\.v_bias", ".attention.v_proj.bias"),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
]
TIMM_SWIN = [
    (r"^norm\.", "layernorm."),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^layers\.(\d+)\.downsample\.", lambda match: f"stages.{int(match[1]) - 1}.merging."),
    (r"^layers\.", "stages."),
    (r"^head\.fc\.", "classifier."),
    *BLOCK,
]
TORCHVISION_SWIN = [
    (r"^norm\.", "layernorm."),
    (r"^features\.0\.0\.", "embeddings.patch_embeddings.projection."),
    (r"^features\.0\.2\.", "embeddings.norm."),
    (r"^features\.(\d+)\.(reduction|norm)\.", lambda match: f"stages.{int(match[1]) // 2 - 1}.merging.{match[2]}."),
    (r"^features\.(\d+)\.", lambda match: f"stages.{int(match[1]) // 2}.blocks."),
    (r"^head\.", "classifier."),
    *BLOCK,
]
TIMM_VIT = [
    (r"^norm\.", "layernorm."),
    (r"^cls_token", "embeddings.cls_token"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.", "layers."),
    (r"^head\.", "classifier."),
    *BLOCK,
]
TORCHVISION_VIT = [
    (r"^class_token", "embeddings.cls_token"),
    (r"^encoder\.pos_embedding", "embeddings.position_embeddings"),
    (r"^conv_proj\.", "embeddings.patch_embeddings.projection."),
    (r"^encoder\.ln\.", "layernorm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"layers.\1."),
    (r"\.ln_1\.", ".attention_norm."),
    (r"\.ln_2\.", ".mlp_norm."),
    (r"\.self_attention\.in_proj_(weight|bias)", r".attention.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attention.o_proj."),
    (r"^heads\.head\.", "classifier."),
    *BLOCK,
]


def drop(state: dict[str, torch.Tensor], *words: str) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if not any(word in key for word in words)}


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


def ours_with(family: str, state: dict[str, torch.Tensor], rules, **overrides):
    model = class_of(family, "ForImageClassification")(config_of(family, **overrides))
    state = renamed(
        drop(state, "relative_position_index", "relative_coords_table", "k_bias"), model.base_model_prefix, rules
    )
    if family == "hf_swin_v2":  # torchvision keeps a bias for the keys and zeroes it in forward
        state = drop(state, "k_proj.bias")
    model.load_state_dict(state, strict=True)
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
    family = {1: "hf_swin", 2: "hf_swin_v2"}[version]
    theirs = timm_swin(version, size)
    # timm shrinks the table of a stage that is smaller than the window; per-stage windows say so here
    windows = [[min(4, size[0] // stride), min(4, size[1] // stride)] for stride in (4, 8)]
    ours = ours_with(family, theirs.state_dict(), TIMM_SWIN, image_size=list(size), window_size=windows)
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, size, f"timm v{version}")
    maps = ours(pixels(*size), output_hidden_states=True).reshaped_hidden_states
    their_maps = theirs.forward_intermediates(pixels(*size), intermediates_only=True)
    assert_close(maps[-1], their_maps[-1], what="last stage")


def test_timm_rolls_before_it_pads_and_so_leaks_across_the_image():
    """A named difference (D3): where padding is needed timm shifts first; ours follows the original detection code."""
    theirs = timm_swin(1, (72, 72))
    ours = ours_with("hf_swin", theirs.state_dict(), TIMM_SWIN, image_size=72)
    with torch.no_grad():
        assert relative_error(ours(pixels(72)).logits, theirs(pixels(72))) > 1e-4


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [(64, 64), (72, 104), (32, 96), (16, 16), (8, 40)])
@pytest.mark.parametrize("version", [1, 2])
def test_swin_equals_torchvision(version, size, implementation):
    family = {1: "hf_swin", 2: "hf_swin_v2"}[version]
    theirs = torchvision_swin(version)
    ours = ours_with(family, theirs.state_dict(), TORCHVISION_SWIN, small_input="pad")
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, size, f"torchvision v{version}")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_vit_equals_timm(implementation):
    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2, "num_classes": 5}
    theirs = shaken(timm.models.VisionTransformer(img_size=32, patch_size=8, **sizes))
    ours = ours_with("hf_vit", theirs.state_dict(), TIMM_VIT)
    ours.set_attn_implementation(implementation)
    assert_same_numbers(ours, theirs, (32, 32), "timm ViT")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_vit_equals_torchvision(implementation):
    theirs = shaken(
        torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5
        )
    )
    ours = ours_with("hf_vit", theirs.state_dict(), TORCHVISION_VIT)
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
    scale = [(r"\.ls1\.gamma", ".attention_scale.weight"), (r"\.ls2\.gamma", ".mlp_scale.weight")]
    if family == "deit3":
        theirs = shaken(timm.models.VisionTransformer(**common, no_embed_class=True, init_values=1e-4))
        state = theirs.state_dict()
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, 32), state["pos_embed"]], dim=1)
        rules, overrides = TIMM_VIT + scale, {"layerscale_value": 1e-4}
    elif family == "distilled":
        theirs = shaken(timm.models.deit.VisionTransformerDistilled(**common))
        state = theirs.state_dict()
        rules = [
            (r"^dist_token", "embeddings.distillation_token"),
            (r"^head_dist\.", "classifier_distillation."),
            *TIMM_VIT,
        ]
        overrides = {"use_distillation_token": True, "use_distillation_head": True}
    else:
        # timm's reg4 layout: registers between the class token and the patches, positions for all but them
        theirs = shaken(timm.models.VisionTransformer(**common, reg_tokens=4, no_embed_class=True, init_values=1.0))
        state = theirs.state_dict()
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, 32), state["pos_embed"]], dim=1)
        rules = [(r"^reg_token", "embeddings.register_tokens"), *TIMM_VIT, *scale]
        overrides = {"num_register_tokens": 4, "layerscale_value": 1.0}
    model = class_of("hf_vit", "ForImageClassification")(config_of("hf_vit", **overrides))
    moved = renamed(state, "vit", rules)
    moved = {key.replace("classifier_distillation", "distillation_classifier"): t for key, t in moved.items()}
    model.load_state_dict(moved, strict=True)
    assert_same_numbers(model.eval(), theirs, (32, 32), family)


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
