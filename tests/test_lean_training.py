"""`hf_swin.optimize(model, training=True)`: the gradients of the ordinary model, with less kept for them."""

import copy

import pytest
import torch
from torch.nn import functional as F

from hf_swin.optimization import optimize

from compare import answers_and_gradients, assert_close, assert_train_alike, relative_error
from tiny import FAMILIES, model_of, pixels


def both(family, **overrides):
    model = model_of(family, **{"drop_path_rate": 0.0, **overrides}).train()
    return optimize(copy.deepcopy(model), training=True), model


def assert_alike(fast, model, x):
    assert_train_alike(answers_and_gradients(fast, x), answers_and_gradients(model, x))


@pytest.mark.parametrize("size", [(64, 64), (60, 52), (32, 96)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_gradients_are_those_of_the_ordinary_model(family, size):
    assert_alike(*both(family), pixels(*size))


@pytest.mark.parametrize("activation", ["relu", "gelu_pytorch_tanh", "quick_gelu", "silu"])
def test_any_activation_is_made_again(activation):
    assert_alike(*both("hf_swin", hidden_act=activation), pixels(64))


@pytest.mark.parametrize("overrides", [{"use_swiglu_ffn": True}, {"qkv_bias": False}, {"layerscale_value": 0.1}])
def test_relatives_of_vit_train_alike(overrides):
    assert_alike(*both("hf_vit", **overrides), pixels(32))


def test_frozen_weights_get_no_gradient():
    fast, model = both("hf_swin")
    for each in (fast, model):
        for name, parameter in each.named_parameters():
            parameter.requires_grad_(name.endswith("bias") or "classifier" in name)
    assert_alike(fast, model, pixels(64))
    assert all((parameter.grad is None) == (not parameter.requires_grad) for parameter in fast.parameters())


def test_dropout_drops_the_same():
    fast, model = both("hf_vit", hidden_dropout_prob=0.3, drop_path_rate=0.3)
    answers = []
    for each in (fast, model):
        torch.manual_seed(3)
        answers.append(each(pixels(32)).logits)
    assert_close(*answers, 1e-5)


def test_steps_of_an_optimizer_are_alike():
    models = both("hf_swin")
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        for seed in range(3):
            optimizer.zero_grad()
            torch.manual_seed(seed)
            model(torch.randn(2, 3, 64, 64), labels=torch.tensor([1, 2])).loss.backward()
            optimizer.step()
    fast, model = (each.state_dict() for each in models)
    for name, value in model.items():
        assert_close(fast[name], value, 2e-5, name)


def test_adapters_keep_their_effect():
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
    fast, model = both("hf_swin")
    adapted = []
    for each in (fast, model):
        torch.manual_seed(0)
        adapted.append(peft.get_peft_model(each, lora).train())
    x = pixels(64)
    assert_close(adapted[0](x).logits, adapted[1](x).logits, 1e-5)
    assert_alike(*adapted, x)


def test_it_can_be_compiled():
    fast, model = both("hf_vit")
    compiled = torch.compile(fast, backend="eager")
    assert_close(compiled(pixels(32)).logits, model(pixels(32)).logits, 1e-5)


def test_the_activation_is_not_kept():
    counts = []
    for model in both("hf_vit"):
        model.set_attn_implementation("eager")  # sdpa has no second derivative
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.shape) or t, lambda t: t):
            model(pixels(32)).logits.sum().backward()
        counts.append(sum(shape.numel() == 2 * 17 * 64 for shape in kept))
    lean, ordinary = counts
    assert lean == 3 and ordinary == 6, "one tensor of an MLP's width for each block, rather than two"


@pytest.mark.parametrize("case", ["no gradients", "evaluation"])
def test_all_else_is_as_before(case):
    fast, model = (each.train(case == "no gradients") for each in both("hf_swin"))
    with torch.set_grad_enabled(case != "no gradients"):
        assert_close(fast(pixels(64)).logits, model(pixels(64)).logits, 5e-6)


def test_what_a_norm_gave_is_made_again(monkeypatch):
    made = []
    norm = F.layer_norm
    for family, count in (("hf_vit", 3), ("hf_swin", 4 + 1)):  # MLPs, and the merging
        fast, _ = both(family)
        loss = fast(pixels(32)).logits.sum()
        monkeypatch.setattr(F, "layer_norm", lambda x, *args: made.append(x.shape) or norm(x, *args))
        loss.backward()
        monkeypatch.undo()
        assert len(made) == count
        del made[:]


def test_gradients_have_gradients():
    found = []
    for model in both("hf_vit"):
        model.set_attn_implementation("eager")  # sdpa has no second derivative
        x = pixels(32).requires_grad_(True)
        [slope] = torch.autograd.grad(model(x).logits.pow(2).sum(), x, create_graph=True)
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(slope.pow(2).sum(), parameters, allow_unused=True)
        found.append([gradient for gradient in gradients if gradient is not None])
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(ours, theirs) < 1e-4 or theirs.abs().max() < 1e-4


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_whole_blocks_may_be_made_again(family, reentrant):
    models = both(family)
    for model in models:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert_alike(*models, pixels(32))
