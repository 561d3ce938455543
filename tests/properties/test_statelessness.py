"""The answer for an image depends on that image alone: not on what came before, nor on its neighbours in the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compare import assert_close
from tiny import FAMILIES, model_of, pixels


MODELS = {family: model_of(family) for family in FAMILIES}
sizes = st.tuples(st.integers(4, 80), st.integers(4, 80))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(first=sizes, others=st.lists(sizes, max_size=3))
def test_a_then_anything_then_a_gives_a(family, first, others):
    model = MODELS[family]
    with torch.no_grad():
        expected = model(pixels(*first, batch=1)).logits
        for other in others:
            model(pixels(*other, batch=1))
        assert torch.equal(model(pixels(*first, batch=1)).logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(size=sizes, order=st.permutations(range(3)))
def test_the_order_of_a_batch_is_the_order_of_the_answers(family, size, order):
    batch = pixels(*size, batch=3)
    with torch.no_grad():
        assert_close(MODELS[family](batch[list(order)]).logits, MODELS[family](batch).logits[list(order)])


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(size=sizes)
def test_neighbours_in_the_batch_do_not_matter(family, size):
    batch = pixels(*size, batch=3)
    with torch.no_grad():
        together = MODELS[family](batch).logits
        alone = torch.cat([MODELS[family](image[None]).logits for image in batch])
    assert_close(alone, together)
