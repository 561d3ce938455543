"""One test for each defect of the peers that could have been ours, named by its number and what it protects."""

import accelerate
import pytest
import torch
import transformers
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

import hf_swin
from hf_swin.modeling_attention import FORBIDDEN, SelfAttention, WindowAttention
from hf_swin.modeling_blocks import PreNormBlock, SwinBlock, SwinV2Block

from compare import assert_close, relative_error
from tiny import FAMILIES, HEADS, class_of, config_of, model_of, pixels, shaken


SWINS = ["hf_swin", "hf_swin_v2"]
BLOCKS = (PreNormBlock, SwinBlock, SwinV2Block)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_d1_loading_leaves_no_buffer_and_no_parameter_to_chance(family, head, tmp_path, poisoned_empty):
    model = model_of(family, head)
    assert not list(model.buffers())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    size = 64 if family != "hf_vit" else 32
    for one, other in zip(model(pixels(size)).to_tuple(), again(pixels(size)).to_tuple(), strict=True):
        assert_close(one, other, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [(64, 32, 64), (64, 16, 64), (64, 96, 64), (32, 64, 32)])
def test_d2_one_image_never_changes_the_next(family, sizes):
    model = model_of(family)
    state = {name: dict(module.__dict__) for name, module in model.named_modules()}
    first, _, last = (model(pixels(size)).logits for size in sizes)
    assert torch.equal(first, last)
    for name, module in model.named_modules():
        assert module.__dict__.keys() == state[name].keys(), f"forward added an attribute to {name}"


@pytest.mark.parametrize("family", SWINS)
def test_d3_windows_do_not_leak_across_the_edges_of_a_padded_image(family):
    model = model_of(family, depths=[2], num_heads=[2], image_size=36)
    image = pixels(36, batch=1)
    changed = image.clone()
    changed[:, :, :4] += 10  # the first row of 9 rows of tokens
    maps = [model(x, output_hidden_states=True).reshaped_hidden_states[-1] for x in (image, changed)]
    rows = (maps[0] - maps[1]).abs().amax((0, 1, 3))
    assert rows[0] > 1e-2 and torch.all(rows[6:] == 0), rows


@pytest.mark.parametrize("family", SWINS)
def test_d4_mask_padding_makes_the_result_independent_of_padding(family):
    model = model_of(family, mask_padding=True, depths=[2], num_heads=[2], image_size=64)
    weights = model(pixels(40), output_attentions=True).attentions
    for block in weights:
        real = torch.zeros(12, 12, dtype=torch.bool)
        real[:10, :10] = True
        shift = 2 if block is weights[1] else 0
        windows = real.roll((-shift, -shift), (0, 1)).reshape(3, 4, 3, 4).transpose(1, 2).reshape(9, 16)
        paid = block * (windows[:, None, :, None] & ~windows[:, None, None, :])
        assert paid.max() == 0, "a real token attends to padding"
    attended = model_of(family, depths=[2], num_heads=[2]).eval()(pixels(40)).logits
    assert relative_error(model(pixels(40)).logits, attended) > 1e-4, "the switch changes nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_d5_drop_path_drops_both_branches(family):
    model = shaken(class_of(family, "Model")(config_of(family, drop_path_rate=1 - 1e-9))).train()
    block = [module for module in model.modules() if isinstance(module, BLOCKS)][-1]
    x = torch.randn(2, 8, 32) if family == "hf_vit" else torch.randn(2, 8, 8, 48)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("family", SWINS)
def test_d6_the_backbone_is_the_classifiers_trunk(family, tmp_path):
    classifier = model_of(family, image_size=32, window_size=4)  # the last stage's grid equals the window
    classifier.save_pretrained(tmp_path)
    backbone = class_of(family, "Backbone").from_pretrained(tmp_path, apply_layernorm=False)
    trunk = classifier(pixels(32), output_hidden_states=True).reshaped_hidden_states[-1]
    assert_close(backbone(pixels(32)).feature_maps[-1], trunk, 0.0)
    always = class_of(family, "Backbone").from_pretrained(tmp_path, apply_layernorm=False, always_partition=True)
    assert relative_error(always(pixels(32)).feature_maps[-1], trunk) > 1e-3, "the switch changes nothing"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [64, 40, 72])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_d7_half_precision_is_finite_and_near_float32(family, size, dtype, implementation):
    model = model_of(family, attn_implementation=implementation)
    exact = model(pixels(size)).logits
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.1}[dtype]
    with torch.autocast("cpu", dtype):
        mixed = model(pixels(size)).logits
    half = model.to(dtype)(pixels(size)).logits
    assert mixed.isfinite().all() and half.isfinite().all() and half.dtype == dtype
    assert relative_error(mixed, exact) < tolerance and relative_error(half, exact) < tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_d7_the_masked_image_loss_is_finite_in_float16(family):
    model = model_of(family, "ForMaskedImageModeling").half()
    patches = (256 // (8 if family == "hf_vit" else 4)) ** 2
    loss = model(pixels(256, batch=4).half(), bool_masked_pos=torch.ones(4, patches, dtype=torch.bool)).loss
    assert loss.isfinite()


@pytest.mark.parametrize("family", FAMILIES)
def test_d7_gradients_in_half_precision_are_finite(family):
    model = model_of(family).to(torch.bfloat16).train()
    model(pixels(40), labels=torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("family", SWINS)
def test_d10_the_largest_unsplittable_piece_is_a_block(family):
    config = type(config_of(family)).preset("large")
    with accelerate.init_empty_weights():
        model = class_of(family, "ForImageClassification")(config)
    total = sum(parameter.nbytes for parameter in model.parameters())
    pieces = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    assert max(sum(p.nbytes for p in piece.parameters()) for piece in pieces) < 0.15 * total
    placed = accelerate.infer_auto_device_map(
        model,
        max_memory={0: int(0.4 * total), 1: int(0.4 * total), "cpu": 10**12},
        no_split_module_classes=model._no_split_modules,
    )
    on_cpu = sum(p.nbytes for name, p in model.named_parameters() if device_of(name, placed) == "cpu")
    assert on_cpu < 0.45 * total, "two devices of 40 % each should hold more than half"


def device_of(name, placed):
    return next(device for prefix, device in placed.items() if name == prefix or name.startswith(f"{prefix}."))


@pytest.mark.parametrize("family", FAMILIES)
def test_d11_gradient_checkpointing_costs_one_more_forward_and_no_more(family):
    flops = {}
    for checkpointing in (False, True):
        model = model_of(family).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        with FlopCounterMode(display=False) as counter:
            model(pixels(64), labels=torch.tensor([0, 1])).loss.backward()
        flops[checkpointing] = counter.get_total_flops()
    assert 1.05 < flops[True] / flops[False] <= 1.36


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family):
    gradients = []
    for checkpointing in (False, True):
        model = model_of(family).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)  # of DropPath
        model(pixels(64), labels=torch.tensor([0, 1])).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert_close(*gradients)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_d13_attentions_on_request_one_per_block_whatever_the_implementation(family, implementation, caplog):
    model = model_of(family, attn_implementation=implementation)
    transformers.utils.logging.enable_propagation()
    outputs = model(pixels(64), output_attentions=True)
    transformers.utils.logging.disable_propagation()
    assert not caplog.records
    blocks = [module for module in model.modules() if isinstance(module, SelfAttention)]
    assert len(outputs.attentions) == len(blocks)
    for weights in outputs.attentions:
        assert weights.shape[0] == 2 and torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    if family != "hf_vit":
        assert outputs.attentions[0].shape == (2, 16, 2, 16, 16)  # images, windows, heads, tokens, tokens
    assert_close(outputs.logits, model(pixels(64)).logits, what="asking for the weights changes the answer")
    assert model(pixels(64)).attentions is None
    model.config.output_attentions = implementation == "eager"
    assert (model(pixels(64)).attentions is not None) == (implementation == "eager")


def test_d14_swin_v2_runs_with_absolute_positions():
    assert model_of("hf_swin_v2", use_absolute_embeddings=True)(pixels(72)).logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_d15_rectangles_everywhere(family):
    rectangle = {"image_size": (32, 64), "patch_size": [4, 4] if family != "hf_vit" else [8, 8]}
    absolute = {} if family == "hf_vit" else {"use_absolute_embeddings": True}
    model = model_of(family, **rectangle, **absolute)
    for size in [(32, 64), (64, 32), (40, 24)]:
        assert model(pixels(*size)).logits.isfinite().all()
    decoder = model_of(family, "ForMaskedImageModeling", **rectangle)
    stride = 8 if family == "hf_vit" else 4
    for height, width in [(32, 64), (30, 61)]:
        patches = -(-height // stride) * -(-width // stride)
        outputs = decoder(pixels(height, width), bool_masked_pos=torch.rand(2, patches) < 0.5)
        assert outputs.reconstruction.shape == (2, 3, height, width) and outputs.loss.isfinite()


@pytest.mark.parametrize("family", SWINS)
def test_d15_rectangular_windows_and_one_per_stage(family):
    model = model_of(family, window_size=[[4, 8], 2], image_size=[32, 64])
    assert model(pixels(32, 64)).logits.isfinite().all()
    assert model(pixels(32, 64), output_attentions=True).attentions[0].shape[-1] == 32


def test_d16_swin_v2_keeps_the_window_and_shift_of_each_axis():
    config = hf_swin.HfSwinV2Config(image_size=(16, 64), patch_size=2, depths=(2,), num_heads=(2,), embed_dim=16)
    attention = [m for m in hf_swin.HfSwinV2Model(config).modules() if isinstance(m, WindowAttention)][1]
    assert attention.spec.window == (8, 8)
    config = hf_swin.HfSwinV2Config(image_size=(16, 64), depths=(2,), num_heads=(2,), embed_dim=16)
    assert config.stage_specs()[0].blocks[0].window == (4, 8)  # a grid of 4 by 16 tokens


def test_d17_the_mask_is_added_once_and_is_final(monkeypatch):
    attention = next(m for m in model_of("hf_swin_v2").modules() if isinstance(m, WindowAttention) and m.spec.shifted)
    layout = hf_swin.modeling_windows.WindowLayout((16, 16), (4, 4), (2, 2))
    bias = attention.masked_bias(layout, 1, torch.device("cpu"))
    assert bias.min() == FORBIDDEN and ((bias > -1) | (bias == FORBIDDEN)).all()
    with torch.no_grad():
        attention.logit_scale.fill_(10.0)  # clamped: scores of ±100 must not open a forbidden pair
    weights = attention(torch.randn(1, 16, 16, 24), output_attentions=True)[1]
    assert torch.all(weights[bias.unflatten(0, (1, -1)).expand_as(weights) == FORBIDDEN] == 0)


def test_d18_swin_v2_block_norms_start_at_zero():
    model = hf_swin.HfSwinV2Model(config_of("hf_swin_v2"))
    blocks = [module for module in model.modules() if isinstance(module, SwinV2Block)]
    assert all(not block.attention_norm.weight.any() and not block.mlp_norm.weight.any() for block in blocks)
    x = torch.randn(1, 8, 8, blocks[0].attention_norm.weight.numel())
    assert torch.equal(blocks[0](x), x)


@pytest.mark.parametrize("family", FAMILIES)
def test_d19_no_pixel_is_lost_at_the_border(family):
    model = model_of(family, patch_size=8, encoder_stride=16)
    image = pixels(39)
    changed = image.clone()
    changed[..., 32:, :] = 1e3
    assert relative_error(model(changed).logits, model(image).logits) > 1e-2


def test_d20_vit_has_the_published_epsilon_and_drop_path():
    config = hf_swin.HfViTConfig(drop_path_rate=0.2)
    assert config.layer_norm_eps == 1e-6
    assert [spec.drop_path_rate for spec in config.block_specs()] == pytest.approx([0.2 * i / 11 for i in range(12)])


@pytest.mark.parametrize("family", SWINS)
def test_d21_masks_are_made_once_and_fit_one_image(family, monkeypatch):
    windows = hf_swin.modeling_windows
    made = []
    original = windows.region_ids
    monkeypatch.setattr(windows, "region_ids", lambda *args: made.append(args) or original(*args))
    model = model_of(family, image_size=88)
    for _ in range(3):
        model(pixels(88))
    assert len(made) <= 2, "one mask for each stage, whatever the number of blocks and calls"


def test_d21_swin_v2_has_sdpa():
    model = model_of("hf_swin_v2", attn_implementation="sdpa")
    assert model.config._attn_implementation == "sdpa"


def test_d22_swin_v2_scores_are_float32_in_bfloat16():
    """The error of half precision is at most half of what it is with the scores in half precision too."""

    def attend_in_bfloat16(self, query, key, value, bias, **kwargs):
        scale = self.logit_scale.clamp(max=self.max_logit_scale).exp()
        query, key = normalize(query, dim=-1) * scale, normalize(key, dim=-1)
        return SelfAttention.attend(self, query, key, value, bias, **kwargs)

    attention = next(m for m in model_of("hf_swin_v2").modules() if isinstance(m, WindowAttention))
    with torch.no_grad():
        attention.logit_scale.fill_(3.5)
    x = torch.randn(1, 16, 16, 24).bfloat16()
    island = attention.to(torch.bfloat16)(x)[0]
    attention.attend = attend_in_bfloat16.__get__(attention)
    without = attention(x)[0]
    del attention.attend
    exact = attention.float()(x.float())[0]  # the same rounded weights
    assert (island - exact).norm() < 0.6 * (without - exact).norm()
    assert (island - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("out_features", [["stage1"], ["stem", "stage2"], ["stage1", "stage2"], ["stem"]])
def test_d26_every_parameter_of_a_backbone_is_used_in_the_backward_pass(family, out_features):
    backbone = model_of(family, "Backbone", out_features=out_features)
    maps = backbone(pixels(64)).feature_maps
    assert len(maps) == len(out_features) and all(x.shape[1] == c for x, c in zip(maps, backbone.channels, strict=True))
    sum((x * torch.randn_like(x)).sum() for x in maps).backward()
    unused = [name for name, parameter in backbone.named_parameters() if parameter.grad is None]
    assert not unused


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_d28_pixels_of_another_type_are_cast(family, dtype):
    model = model_of(family).to(dtype)
    assert model(pixels(64)).logits.dtype == dtype
    assert model_of(family)(pixels(64).to(dtype)).logits.dtype == torch.float32
