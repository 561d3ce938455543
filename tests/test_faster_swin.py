"""Swin's stages, blocks and mergings as kernels: equal answers, and the ordinary way where something is unusual."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_swin import faster_swin
from hf_swin.optimization import optimize
from hf_swin.packed_products import KERNEL, products
from hf_swin.window_kernel import mixed_in_windows

from compare import assert_close, relative_error
from tiny import model_of, pixels


pytestmark = pytest.mark.skipif(products(torch.float32) is not KERNEL, reason="the kernels are not taken here")

SWINS = ["hf_swin", "hf_swin_v2"]
# Heads of 32, whose numbers a processor may take in pairs, and windows of an odd number of tokens.
REAL = {"embed_dim": 64, "window_size": 7, "image_size": 56, "patch_size": 2, "num_heads": [2, 4]}
WHOLE = 2 + 1  # the stages and the merging of a tiny model


@pytest.fixture
def runs(monkeypatch):
    """The names of the kernels that have run for whole modules."""
    names = []

    def remembering(make):
        def remembered(name, *args):
            run = make(name, *args)

            def counted(*changing):
                names.append(name)
                run(*changing)

            counted.row, counted.holds = run.row, run
            return counted

        return remembered

    for name in ("prepared", "chained"):
        monkeypatch.setattr(faster_swin, name, remembering(getattr(faster_swin, name)))
    return names


def both(family, dtype=torch.float32, **overrides):
    model = model_of(family, **overrides).to(dtype)
    return model, optimize(copy.deepcopy(model))


@torch.inference_mode()
def logits(model, x, **kwargs):
    return model(x, **kwargs).logits


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("overrides", [{}, REAL], ids=["tiny", "real heads"])
@pytest.mark.parametrize("family", SWINS)
def test_whole_stages_are_kernels_and_answer_alike(family, overrides, threads, runs):
    model, fast = both(family, **overrides)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for batch in (1, 3):
            x = pixels(overrides.get("image_size", 64), batch=batch)
            del runs[:]
            assert_close(logits(fast, x), logits(model, x), 5e-6)
            assert len(runs) == WHOLE and runs.count("patch_merging") == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(products(torch.bfloat16) is not KERNEL, reason="oneDNN's bfloat16 is better here")
@pytest.mark.parametrize("overrides", [{}, REAL], ids=["tiny", "real heads"])
@pytest.mark.parametrize("family", SWINS)
def test_bfloat16_is_as_close_to_float32_as_pytorch_s(family, overrides, runs):
    model, fast = both(family, torch.bfloat16, **overrides)
    x = pixels(overrides.get("image_size", 64)).to(torch.bfloat16)
    ours, theirs = logits(fast, x), logits(model, x)
    exact = logits(model.float(), x.float())
    assert len(runs) == WHOLE and ours.dtype == torch.bfloat16
    assert relative_error(ours, exact) <= max(1.5 * relative_error(theirs, exact), 1e-2)


@pytest.mark.parametrize("window", [(7, 7), (4, 4), (3, 5)], ids=str)
@pytest.mark.parametrize("width", [32, 64])
def test_windows_in_pairs_of_bfloat16_are_their_definition(window, width):
    height, across, heads = 2 * window[0], 3 * window[1], 2
    torch.manual_seed(width)
    query, key, value = torch.randn(3, 2, height, across, heads * width).to(torch.bfloat16)
    tokens = window[0] * window[1]
    bias, scale = torch.randn(heads, tokens, tokens), torch.tensor([0.2, 0.1])
    mixed = mixed_in_windows(query, key, value, bias, scale, [*window, 0, 0], False)

    def cut(x):  # (B, H, W, C) to (B, windows, heads, tokens, width)
        x = x.double().unflatten(1, (2, window[0])).unflatten(3, (3, window[1])).unflatten(-1, (heads, width))
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 2)

    scores = cut(query) @ cut(key).transpose(-2, -1) * scale[:, None, None] + bias
    assert_close(cut(mixed), scores.softmax(-1) @ cut(value), 6e-3)


@pytest.mark.parametrize("family", SWINS)
def test_who_once_asked_for_hidden_states_keeps_the_kernels(family, runs):
    model, fast = both(family)
    x = pixels(64)
    with torch.inference_mode():  # transformers leaves hooks at every stage and attention
        states, expected = (each(x, output_hidden_states=True).hidden_states for each in (fast, model))
    assert_close(states, expected, 5e-6)
    assert len(runs) == WHOLE, "stage by stage, but each as kernels"
    with torch.inference_mode():
        fast(x, output_attentions=True)
    del runs[:]
    assert_close(logits(fast, x), logits(model, x), 5e-6)
    assert len(runs) == WHOLE


def test_attentions_are_given_as_ever(runs):
    model, fast = both("hf_swin")
    with torch.inference_mode():
        given, expected = (each(pixels(64), output_attentions=True).attentions for each in (fast, model))
    assert_close(given, expected, 5e-6)
    assert not {"swin_block", "swin_blocks"} & set(runs)


@pytest.mark.parametrize("family", SWINS)
def test_an_odd_grid_is_merged_into_one_row_more(family, runs):
    # 9 x 9 tokens become 5 x 5: a guess of 4 x 4 would fit windows of 3 no better, but read another number of tokens.
    model, fast = both(family, window_size=3, image_size=36, depths=[1, 1], small_input="clamp")
    for size in (36, 108):
        assert_close(logits(fast, pixels(size)), logits(model, pixels(size)), 5e-6)
    assert "swin_blocks" in runs and "patch_merging" not in runs


def block(model):
    return model.base_model.stages[1].blocks[0]


def wider(model):
    torch.manual_seed(0)
    mlp = block(model).mlp
    mlp.fc1, mlp.fc2 = nn.Linear(mlp.fc1.in_features, 200), nn.Linear(200, mlp.fc2.out_features)


CHANGES = {
    "a wider MLP": wider,
    "a hook": lambda model: block(model).mlp.fc1.register_forward_hook(lambda module, args, output: 2 * output),
    "a hook before": lambda model: block(model).register_forward_pre_hook(lambda module, args: (args[0] ** 2,)),
    "a hook of a stage": lambda model: model.base_model.stages[0].register_forward_hook(
        lambda module, args, output: tuple(2 * part for part in output)
    ),
    "another forward": lambda model: setattr(block(model).attention, "forward", lambda x, **kwargs: (0 * x, None)),
    "another layer": lambda model: setattr(block(model).mlp, "fc2", nn.Sequential(block(model).mlp.fc2, nn.Tanh())),
    "another norm": lambda model: setattr(block(model), "mlp_norm", nn.Identity()),
    "other weights": lambda model: block(model).mlp.fc1.weight.mul_(0.5),
    "weights in place": lambda model: nn.init.ones_(block(model).attention_norm.weight),
    "another table": lambda model: [nn.init.ones_(part) for part in block(model).attention._parameters.values()],
    "a block less": lambda model: model.base_model.stages[0].blocks.__delitem__(0),
    "blocks the other way round": lambda model: setattr(
        model.base_model.stages[0], "blocks", nn.ModuleList(reversed(model.base_model.stages[0].blocks))
    ),
    "another merging": lambda model: setattr(
        model.base_model.stages[0].merging, "norm", nn.Identity() if "V2" in type(model).__name__ else nn.LayerNorm(96)
    ),
    "other attention": lambda model: model.set_attn_implementation("eager"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family", SWINS)
def test_a_change_after_optimize_has_its_effect(family, change):
    model, fast = both(family)
    x = pixels(64)
    before = logits(fast, x)
    for each in (model, fast):
        with torch.no_grad():
            CHANGES[change](each)
    expected = logits(model, x)
    assert_close(logits(fast, x), expected, 5e-6)
    assert change == "other attention" or relative_error(before, expected) > 1e-4, "the change has an effect at all"


@pytest.mark.parametrize("name", ["attention.q_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"])
@pytest.mark.parametrize("family", SWINS)
def test_layers_that_do_not_fit_are_pytorch_s_to_refuse(family, name):
    _, fast = both(family)
    layer = block(fast).get_submodule(name)
    block(fast).set_submodule(name, nn.Linear(layer.in_features, layer.out_features - 1))
    with pytest.raises((RuntimeError, ValueError)):
        logits(fast, pixels(64))


@pytest.mark.parametrize("name", ["attention.dropout", "mlp.dropout", "drop_path"])
def test_a_dropout_that_alone_is_in_training_drops(name):
    overrides = {"hidden_dropout_prob": 0.5, "drop_path_rate": 0.9}
    _, fast = both("hf_swin", **overrides)
    last = fast.base_model.stages[1].blocks[1]
    last.get_submodule(name).train()
    torch.manual_seed(0)
    answers = torch.stack([logits(fast, pixels(64)) for _ in range(8)])
    assert answers.std(0).max() > 1e-3


@pytest.mark.parametrize("family", SWINS)
def test_gradients_take_the_ordinary_way(family, runs):
    _, fast = both(family)
    fast(pixels(64)).logits.sum().backward()
    assert not runs and all(p.grad is not None for p in fast.base_model.stages[0].parameters())


def test_autocast_and_other_types_take_the_ordinary_way(runs):
    model, fast = both("hf_swin")
    x = pixels(64)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(logits(fast, x), logits(model, x), 2e-2)
    fast, model = fast.double(), model.double()
    assert_close(logits(fast, x.double()), logits(model, x.double()), 1e-12)
    assert not runs


def test_an_empty_batch_has_no_answers():
    _, fast = both("hf_swin")
    assert logits(fast, torch.empty(0, 3, 64, 64)).shape == (0, 5)


def test_a_large_image_goes_through_in_strips(monkeypatch, runs):
    monkeypatch.setattr(faster_swin, "PIECE", 4_000)  # the first grid has 16 x 16 x 24 numbers, the second half of them
    model, fast = both("hf_swin")
    assert_close(logits(fast, pixels(64, batch=3)), logits(model, pixels(64, batch=3)), 5e-6)
    assert runs.count("swin_block") == 3 * 2 * 2, "for each image, both blocks of the first stage in two strips"
    assert runs.count("swin_blocks") == 3, "for each image, the second stage as a whole"


def test_a_norm_of_equal_numbers_is_its_offset():
    model, fast = both("hf_swin")
    for each in (model, fast):
        nn.init.zeros_(each.base_model.embeddings.norm.weight)
        nn.init.ones_(each.base_model.embeddings.norm.bias)
    assert_close(logits(fast, pixels(64)), logits(model, pixels(64)), 1e-5)
    assert F.layer_norm(torch.ones(2, 24), (24,)).abs().max() == 0
