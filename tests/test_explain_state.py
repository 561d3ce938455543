"""Explaining leaves a model as it was, and finds the same in whatever state the model is."""

import copy

import numpy as np
import pytest
import torch

from hf_swin import faster_swin, optimize
from hf_swin.errors import UserError
from hf_swin.explain import attention_maps, class_map, named_blocks

from tiny import FAMILIES, model_of, pixels


every_family = pytest.mark.parametrize("family", FAMILIES)


def image_of(family):
    return pixels(32 if family == "hf_vit" else 64, batch=1)


def state_of(model):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": hooks,
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "trained": [p.requires_grad for p in model.parameters()],
        "attention": model.config._attn_implementation,
        "config": model.config.to_dict(),
        "weights": {name: tensor.clone() for name, tensor in model.state_dict().items()},
    }


def assert_same_state(before, after):
    torch.testing.assert_close(after.pop("weights"), before.pop("weights"), rtol=0, atol=0)
    for one, other in zip(before.pop("gradients"), after.pop("gradients"), strict=True):
        assert (one is None) == (other is None) and (one is None or one.equal(other))
    assert after == before


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@every_family
def test_the_model_stays_as_it_was(family, attention):
    model, image = model_of(family), image_of(family)
    with torch.no_grad():  # transformers hangs its recorders into a model when it is first asked for attention
        logits = model(image, output_attentions=True).logits
    model.set_attn_implementation(attention)
    model.train().base_model.embeddings.eval().requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    before, random, picture = state_of(model), torch.get_rng_state(), image.clone()
    attention_maps(model, image)
    class_map(model, image)
    several = torch.cat([image, image])
    for explain in (attention_maps, class_map):
        with pytest.raises(UserError, match="not one image"):
            explain(model, several)
    assert_same_state(before, state_of(model))
    assert torch.get_rng_state().equal(random) and image.equal(picture) and image.grad is None
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(image).logits, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@every_family
def test_no_mode_of_the_caller_matters(family, mode):
    model, image = model_of(family), image_of(family)
    maps, heat = attention_maps(model, image), class_map(model, image)
    with mode():
        its_maps, its_heat = attention_maps(model, image * 1), class_map(model, image * 1)
    np.testing.assert_array_equal(its_heat, heat)
    for one, other in zip(its_maps, maps, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)


@pytest.mark.parametrize("piece", [None, 1])
@every_family
def test_optimised_models_give_equal_maps(family, piece, monkeypatch):
    monkeypatch.setattr(faster_swin, "PIECE", piece or faster_swin.PIECE)
    model, image = model_of(family), image_of(family)
    fast = optimize(copy.deepcopy(model))
    for ours, theirs in zip(attention_maps(fast, image), attention_maps(model, image), strict=True):
        np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-5)
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    heat = class_map(model, image)
    np.testing.assert_allclose(class_map(fast, image), heat, atol=1e-5 * heat.max())


@every_family
def test_compiled_models_are_not_compiled_again(family):
    def fail(*args, **kwargs):
        raise AssertionError("the compiled model was called")

    model, image = model_of(family), image_of(family)
    heat = class_map(model, image)
    model._compiled_call_impl = fail
    assert len(attention_maps(model, image)) == len(named_blocks(model))
    np.testing.assert_array_equal(class_map(model, image), heat)


@every_family
def test_models_of_half_the_precision_answer_in_float32(family):
    model, image = model_of(family).to(torch.bfloat16), image_of(family)
    map_ = attention_maps(model, image)[0]
    assert map_.weights.dtype == map_.received().dtype == np.float32
    assert class_map(model, image).dtype == np.float32
