"""`hf_swin.optimize`: equal answers by a faster way, which sees changed weights and leaves the model's state alone."""

import copy
import itertools

import pytest
import torch
import transformers
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import hf_swin
from hf_swin import faster_swin, faster_ways
from hf_swin.errors import UserError
from hf_swin.faster_swin import Piecewise, strips
from hf_swin.faster_ways import PackedProduct
from hf_swin.modeling_windows import WindowLayout, pad, partition, region_ids
from hf_swin.optimization import optimize
from hf_swin.packed_products import KERNEL
from hf_swin.packed_products import products as makers

from compare import assert_close, relative_error
from tiny import FAMILIES, VIT, model_of, pixels


SWINS = ["hf_swin", "hf_swin_v2"]
# Numbers that go through a block together. The first grid of a tiny Swin at 64 pixels is 16x16x24 = 6144 of them.
PIECES = {"whole batches": 10**9, "some images": 13_000, "one image": 6_500, "rows": 3_100, "one row of windows": 1}
needs_packing = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def products(monkeypatch):
    """How many products of packed weights have been made, as a list with an entry for each."""
    made, call = [], PackedProduct.__call__
    monkeypatch.setattr(
        PackedProduct, "__call__", lambda self, *args, **kwargs: made.append(self) or call(self, *args, **kwargs)
    )
    return made


def answers(model, x, **kwargs):
    with torch.inference_mode():
        outputs = model(x, output_hidden_states=True, **kwargs)
    return [outputs.logits, *outputs.hidden_states]


def both(family, **overrides):
    """Returns an ordinary model, and an optimised copy of it."""
    model = model_of(family, **overrides)
    return model, optimize(copy.deepcopy(model))


def assert_equal_models(fast, model, x, tolerance=5e-6):
    assert_close(answers(fast, x), answers(model, x), tolerance)


# equal answers


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("family", SWINS)
def test_answers_are_equal_whatever_goes_through_a_block_together(family, piece, monkeypatch):
    monkeypatch.setattr(faster_swin, "PIECE", PIECES[piece])
    model, fast = both(family)
    sizes = [
        (64, 64),
        (32, 96),
        (60, 52),
        (12, 12),
        (64, 64),
    ]  # fitting, rectangular, padded, small, and again the first
    for size in sizes:
        assert_equal_models(fast, model, pixels(*size, batch=3))
    assert_equal_models(fast, model, pixels(64, batch=1))


@pytest.mark.parametrize(
    "overrides", [{"always_partition": True}, {"window_size": [[2, 4], [4, 2]]}, {"window_size": 8}]
)
@pytest.mark.parametrize("family", SWINS)
def test_strips_are_right_for_other_windows(family, overrides, monkeypatch):
    model, fast = both(family, **overrides)
    for piece in (1, 2000, 4000):
        monkeypatch.setattr(faster_swin, "PIECE", piece)
        assert_equal_models(fast, model, pixels(64, 96))


def test_an_image_is_cut_into_strips_at_all(monkeypatch):
    cut, fill = [], Piecewise.fill
    monkeypatch.setattr(
        Piecewise, "fill", lambda self, *args, **kwargs: cut.append(args[2]) or fill(self, *args, **kwargs)
    )
    monkeypatch.setattr(faster_swin, "PIECE", 1)
    _, fast = both("hf_swin")
    answers(fast, pixels(64))
    assert (
        len(cut) == 8 and sum(any(layout.shift) for layout in cut) == 4
    )  # 2 images, 4 blocks, every second one shifted
    answers(fast, pixels(60, 52))
    assert all(layout.padded == layout.grid for layout in cut)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_packed_and_answers_alike(family, products):
    model, fast = both(family)
    for size in (32, 64, 32):
        assert_equal_models(fast, model, pixels(size))
    assert bool(products) == torch.backends.mkldnn.is_available()
    assert optimize(model) is model and not model.training


@pytest.mark.parametrize("head", ["Model", "ForMaskedImageModeling", "Backbone"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_answers_alike(family, head):
    model = model_of(family, head)
    fast = optimize(copy.deepcopy(model))
    with torch.inference_mode():
        outputs, expected = (
            fast(pixels(64 if family != "hf_vit" else 32)),
            model(pixels(64 if family != "hf_vit" else 32)),
        )
    flat = [
        [t for value in o.values() for t in (value if isinstance(value, tuple) else [value])]
        for o in (outputs, expected)
    ]
    assert_close(*flat, 5e-6)


@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh", "relu", "quick_gelu", "gelu_new"])
@pytest.mark.parametrize("family", ["hf_swin", "hf_vit"])
def test_other_activations_stay_what_they_are(family, activation):
    model, fast = both(family, hidden_act=activation)
    assert_equal_models(fast, model, pixels(32))


@pytest.mark.parametrize("overrides", [{"use_swiglu_ffn": True}, {"qkv_bias": False}, {"layerscale_value": 0.1}])
def test_relatives_of_vit_answer_alike(overrides):
    model, fast = both("hf_vit", **overrides)
    assert_equal_models(fast, model, pixels(32))


def test_a_gated_mlp_of_dinov2_answers_alike(tmp_path):
    config = transformers.Dinov2Config(**{**VIT, "use_swiglu_ffn": True, "mlp_ratio": 3})
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    model = hf_swin.HfViTModel.from_pretrained(tmp_path)
    fast = optimize(copy.deepcopy(model))
    with torch.inference_mode():
        assert_close(fast(pixels(32)).last_hidden_state, model(pixels(32)).last_hidden_state, 5e-6)


@pytest.mark.parametrize("family", SWINS)
def test_without_biases_and_with_hidden_padding_answers_are_alike(family):
    model, fast = both(family, qkv_bias=False, mask_padding=True)
    for size in (64, 60):
        assert_equal_models(fast, model, pixels(size))


@pytest.mark.parametrize("family", FAMILIES)
def test_who_wants_the_weights_gets_them(family, monkeypatch):
    monkeypatch.setattr(faster_swin, "PIECE", 1)
    model, fast = both(family)
    with torch.inference_mode():
        outputs, expected = (each(pixels(32), output_attentions=True) for each in (fast, model.eval()))
    assert len(outputs.attentions) == len(expected.attentions) > 0
    assert_close(outputs.attentions, expected.attentions, 1e-5)
    assert_close(outputs.logits, expected.logits, 5e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_asked_for_by_dtype(family):
    model = model_of(family)
    fast = optimize(copy.deepcopy(model), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in fast.parameters()} == {torch.bfloat16}
    exact, rough = answers(model, pixels(64))[0], answers(fast, pixels(64).to(torch.bfloat16))[0]
    assert rough.dtype == torch.bfloat16 and (rough - exact).norm() <= 3e-2 * exact.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_still_works(family):
    model, fast = both(family)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = answers(fast, pixels(32))[0]
    exact = answers(model, pixels(32))[0]
    assert (rough - exact).norm() <= 3e-2 * exact.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_compiler_sees_the_ordinary_model(family, products):
    model, fast = both(family)
    compiled = torch.compile(fast, backend="eager")
    with torch.inference_mode():
        assert_close(compiled(pixels(32)).logits, model(pixels(32)).logits, 5e-6)
    assert not products


@pytest.mark.parametrize("part", ["attention", "attention.o_proj", "mlp", "mlp.fc2", "mlp_norm"])
@pytest.mark.parametrize("family", ["hf_vit", "hf_swin"])
def test_whoever_watches_a_part_of_a_block_sees_it_work(family, part):
    seen = []
    for each in both(family):
        module = next(module for name, module in each.named_modules() if name.endswith(f".0.{part}"))
        module.register_forward_hook(lambda module, args, output: seen.append(output))
        answers(each, pixels(32))
    first, second = (output[0] if part == "attention" else output for output in seen)
    assert_close(second.flatten().sort().values, first.flatten().sort().values, 5e-6)  # windows may be a grid by then


@pytest.mark.parametrize("family", FAMILIES)
def test_optimising_twice_is_as_once(family, monkeypatch):
    monkeypatch.setattr(faster_swin, "PIECE", 1)
    model, fast = both(family)
    assert_equal_models(optimize(fast), model, pixels(64))


# gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_ordinary_model(family, products):
    model, fast = both(family)
    answers(fast, pixels(64))  # what inference keeps must not reach training
    products.clear()
    gradients = []
    for each in (fast, model):
        if family != "hf_vit":
            each.set_attn_implementation("window_kernel")
        x = pixels(64).requires_grad_(True)
        each(x).logits.square().sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in each.parameters())])
    assert not products and all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_drops_even_without_gradients(family):
    """Dropout at inference, for the spread of several answers, is not taken away."""
    _, fast = both(family, hidden_dropout_prob=0.5)
    linear = next(module for module in fast.modules() if type(module).__name__ == "MLP").train()
    x = torch.randn(1, 4, 4, linear.fc1.in_features)
    with torch.no_grad():
        assert not torch.equal(linear(x), linear(x))


# weights that change


def changes(model, how):
    with torch.no_grad():
        if how == "multiplied in place":
            for parameter in model.parameters():
                parameter.mul_(1.1)
        elif how == "multiplied under inference mode":
            with torch.inference_mode():
                for parameter in model.parameters():
                    parameter.mul_(1.1)
        elif how == "loaded":
            model.load_state_dict({key: value * 1.1 for key, value in model.state_dict().items()})
        elif how == "assigned":
            model.load_state_dict({key: value * 1.1 for key, value in model.state_dict().items()}, assign=True)
        elif how == "one of three":
            for name, parameter in model.named_parameters():
                if name.endswith(("v_proj.bias", "fc2.weight", "position_bias_table", "position_bias.fc1.bias")):
                    parameter.add_(0.3)
    return model


HOWS = ["multiplied in place", "multiplied under inference mode", "loaded", "assigned", "one of three"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_changed_weights_are_noticed(family, how):
    model, fast = both(family)
    x = pixels(64)
    before = answers(fast, x)[0]
    changes(model, how), changes(fast, how)
    assert_equal_models(fast, model, x)
    assert relative_error(answers(fast, x)[0], before) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_training_is_noticed(family):
    model, fast = both(family)
    x = pixels(64)
    before = answers(fast, x)[0]
    for each in (model, fast):
        optimizer = torch.optim.SGD(each.parameters(), lr=1e-2)
        each(x, labels=torch.tensor([1, 2])).loss.backward()
        optimizer.step()
    assert_equal_models(fast, model, x, 2e-5)
    assert relative_error(answers(fast, x)[0], before) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_another_type_and_back_is_noticed(family):
    model, fast = both(family)
    x = pixels(64)
    answers(fast, x)
    model, fast = model.to(torch.bfloat16), fast.to(torch.bfloat16)
    rough = answers(fast, x.to(torch.bfloat16))[0]
    assert rough.dtype == torch.bfloat16
    assert_equal_models(fast.float(), model.float(), x)  # the rounded weights, not those from before
    exact = answers(model, x)[0]
    assert (rough - exact).norm() <= 3e-2 * exact.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_life_under_inference_mode_works(family):
    """Parameters made there count no versions."""
    with torch.inference_mode():
        model = model_of(family)
        fast = optimize(copy.deepcopy(model))
        assert_equal_models(fast, model, pixels(64))
        for each in (model, fast):
            for parameter in each.parameters():
                parameter.mul_(1.1)
        assert_equal_models(fast, model, pixels(64))


# the model's state


@pytest.mark.parametrize("family", FAMILIES)
def test_an_optimised_model_is_saved_as_any_other(family, tmp_path):
    model, fast = both(family)
    x = pixels(64)
    expected = answers(fast, x)
    assert fast.state_dict().keys() == model.state_dict().keys() and not list(fast.buffers())
    fast.save_pretrained(tmp_path)
    opened, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert all(torch.equal(value, opened.state_dict()[key]) for key, value in model.state_dict().items())
    assert_close(answers(opened, x), expected, 5e-6)
    assert answers(opened, x)[0].equal(answers(model, x)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_has_its_own_weights(family):
    _, fast = both(family)
    x = pixels(64)
    expected = answers(fast, x)[0]
    copied = copy.deepcopy(fast)
    assert answers(copied, x)[0].equal(expected)
    changes(copied, "multiplied in place")
    assert relative_error(answers(copied, x)[0], expected) > 1e-3
    assert answers(fast, x)[0].equal(expected)
    copied.load_state_dict(fast.state_dict())
    assert answers(copied, x)[0].equal(expected)


# layers that do more than a product


class Turned(nn.Linear):
    """A layer whose answer is not that of its weights, as an adapter's."""

    def forward(self, x):
        return super().forward(x).roll(1, -1)


def replace_layers(model, names):
    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if child_name in names and type(child) is nn.Linear:
                other = Turned(child.in_features, child.out_features, bias=child.bias is not None)
                other.load_state_dict(child.state_dict())
                setattr(module, child_name, other)
    return model.eval()


@pytest.mark.parametrize(
    "names", [["q_proj"], ["v_proj"], ["o_proj"], ["fc1"], ["fc2"], ["classifier"]], ids=lambda n: n[0]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_replaced_layer_is_left_alone(family, names):
    model = replace_layers(model_of(family), names)
    fast = optimize(copy.deepcopy(model))
    x = pixels(64)
    assert_equal_models(fast, model, x)
    assert relative_error(answers(fast, x)[0], answers(model_of(family), x)[0]) > 1e-3


@pytest.mark.parametrize("names", [["v_proj"], ["fc1"], ["classifier"]], ids=lambda n: n[0])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_that_is_replaced_afterwards_counts(family, names):
    model, fast = both(family)
    answers(fast, pixels(64))
    assert_equal_models(replace_layers(fast, names), replace_layers(model, names), pixels(64))


@pytest.mark.parametrize("adapter_first", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_keep_their_effect(family, adapter_first):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
    plain = model_of(family)
    model = copy.deepcopy(plain)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(copy.deepcopy(model), lora)
    if adapter_first:
        fast = copy.deepcopy(adapted)
        optimize(fast.get_base_model())
    else:
        torch.manual_seed(0)
        fast = peft.get_peft_model(optimize(model), lora)
    adapted.eval(), fast.eval()
    assert_equal_models(fast, adapted, pixels(64))
    assert relative_error(answers(fast, pixels(64))[0], answers(plain, pixels(64))[0]) > 1e-3


def test_a_model_of_another_package_is_refused():
    stock = transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, intermediate_size=64))
    with pytest.raises(UserError, match="ViTForImageClassification"):
        optimize(stock)


# eight bits


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits_mostly_agree(family):
    pytest.importorskip("torchao")
    model = model_of(family)
    fast = optimize(copy.deepcopy(model), int8=True)
    x = torch.randn(32, 3, 32, 32)
    exact, rough = answers(model, x)[0], answers(fast, x)[0]
    assert (exact.argmax(-1) == rough.argmax(-1)).float().mean() >= 0.8
    assert 1e-5 < (rough - exact).norm() / exact.norm() < 0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits_are_for_linear_layers_without_the_network_of_the_bias(family):
    pytest.importorskip("torchao")
    fast = optimize(model_of(family), int8=True)
    linear = {name: module for name, module in fast.named_modules() if isinstance(module, nn.Linear)}
    quantised = {name for name, module in linear.items() if type(module.weight) is not nn.Parameter}
    assert quantised == {name for name in linear if "continuous_position_bias" not in name}
    assert any(name.endswith("q_proj") for name in quantised) and "classifier" in quantised
    assert any("continuous_position_bias" in name for name in linear) == (family == "hf_swin_v2")


# strips, on integers


def layouts():
    for side, shifted, windows, across in itertools.product((2, 4, 7), (0, 1), (1, 2, 3, 5), (0, 1)):
        yield WindowLayout((side * windows, 6), (side, 3), (side // 2 * shifted, across))


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 15, 100])
def test_strips_cover_every_row_once_in_whole_windows(rows):
    for layout in layouts():
        height, side = layout.grid[0], layout.window[0]
        cuts = list(strips(layout, rows))
        assert sorted(row for parts, _ in cuts for part in parts for row in range(height)[part]) == list(range(height))
        for parts, cut in cuts:
            assert sum(part.stop - part.start for part in parts) == cut.grid[0] <= max(rows, side)
            assert all(0 <= part.start < part.stop <= height for part in parts)
            assert cut.padded == cut.grid and cut.grid[1] == layout.grid[1] and cut.window == layout.window


def windows_of(layout, numbers_HW):
    """Returns, for the tokens of each window in their order, which pairs are of one region."""
    tokens_NT = partition(pad(numbers_HW[None, :, :, None], layout), layout).squeeze(-1)
    uncut = WindowLayout(layout.padded, layout.window, (0, 0))
    ids_NT = partition(region_ids(layout, False, torch.device("cpu"))[None, :, :, None], uncut).squeeze(-1)
    return {
        tuple(tokens): (ids[:, None] == ids).tolist() for tokens, ids in zip(tokens_NT.tolist(), ids_NT, strict=True)
    }


@pytest.mark.parametrize("rows", [1, 2, 4, 8, 15, 100])
def test_windows_of_strips_are_those_of_the_whole_grid(rows):
    for layout in layouts():
        numbers_HW = torch.arange(layout.grid[0] * layout.grid[1]).reshape(layout.grid)
        found = {}
        for parts, cut in strips(layout, rows):
            found |= windows_of(cut, torch.cat([numbers_HW[part] for part in parts]))
        assert found == windows_of(layout, numbers_HW)


def test_strips_worked_out_by_hand():
    shifted = list(strips(WindowLayout((8, 4), (4, 4), (2, 0)), 4))
    assert shifted == [
        ([slice(2, 6)], WindowLayout((4, 4), (4, 4), (0, 0))),
        ([slice(0, 2), slice(6, 8)], WindowLayout((4, 4), (4, 4), (2, 0))),
    ]
    assert list(strips(WindowLayout((8, 4), (4, 4), (0, 0)), 9)) == [
        ([slice(0, 8)], WindowLayout((8, 4), (4, 4), (0, 0)))
    ]


@needs_packing
@pytest.mark.parametrize("batch", [1, 7])
def test_a_packed_layer_is_its_product(batch):
    layers = [nn.Linear(24, 40), nn.Linear(24, 8, bias=False)]
    x = torch.randn(batch, 3, 5, 24)[:, :, 1:]  # a part of a wider grid
    with torch.no_grad():
        expected = torch.cat([layer(x) for layer in layers], dim=-1)
        assert_close(PackedProduct()(x, *layers), expected, 2e-6)
        assert_close(PackedProduct("relu")(x, *layers), expected.relu(), 2e-6)


@pytest.mark.skipif(makers(torch.float32) is not KERNEL, reason="the kernels are not taken here")
def test_vit_mixes_few_tokens_by_the_kernel_and_many_as_it_was_told(monkeypatch):
    calls = []
    mixed = faster_ways.mixed_globally
    monkeypatch.setattr(faster_ways, "mixed_globally", lambda *args: calls.append(args[0].shape) or mixed(*args))
    model, fast = both("hf_vit")
    assert_equal_models(fast, model, pixels(32))
    assert len(calls) == 3
    monkeypatch.setattr(faster_ways, "MOST_TOKENS", 16)
    assert_equal_models(fast, model, pixels(32))  # 17 tokens
    monkeypatch.setattr(faster_ways, "MOST_TOKENS", 640)
    transformers.AttentionInterface.register("twice", lambda *args, **kwargs: twice(*args, **kwargs))
    for each in (model, fast):
        each.set_attn_implementation("twice")
    assert_equal_models(fast, model, pixels(32))
    assert len(calls) == 3


def twice(*args, **kwargs):
    mixed, weights = sdpa_attention_forward(*args, **kwargs)
    return 2 * mixed, weights
