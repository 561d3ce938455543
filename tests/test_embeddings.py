"""Positions and tokens, worked out by hand."""

import math

import pytest
import torch

from hf_swin.modeling_embeddings import sinusoidal_1d, sinusoidal_2d
from hf_swin.modeling_resizing import resize_positions
from hf_swin.modeling_stages import gather_neighbours

from tiny import config_of, model_of, pixels, shaken


CPU = torch.device("cpu")


def test_sinusoidal_positions_follow_the_formula():
    expected = [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]
    assert torch.allclose(sinusoidal_1d(5, 4, CPU)[3], torch.tensor(expected))


def test_sinusoidal_positions_of_a_grid_know_row_and_column():
    table = sinusoidal_2d((2, 3), 8, CPU).reshape(2, 3, 8)
    assert torch.equal(table[0, 1, :4], table[1, 1, :4])  # the first half is the column
    assert torch.equal(table[1, 0, 4:], table[1, 2, 4:])  # the second half is the row


def test_positions_of_the_same_grid_are_returned_untouched():
    table = torch.randn(1, 6, 4)
    assert resize_positions(table, (2, 3), (2, 3), "bicubic") is table


def test_a_rectangle_of_equally_many_patches_is_not_mistaken_for_the_square():
    table = torch.randn(1, 16, 4)
    resized = resize_positions(table, (4, 4), (2, 8), "bicubic")
    assert resized.shape == table.shape and not torch.allclose(resized, table)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal_1d", "sinusoidal_2d", "none"])
def test_every_kind_of_position_runs_at_every_size(kind):
    model = model_of("hf_vit", position_embedding_type=kind)
    assert (model.vit.embeddings.position_embeddings is not None) == (kind == "learned")
    for size in [(32, 32), (48, 24), (33, 47)]:
        assert model(pixels(*size)).logits.isfinite().all()


def test_without_positions_the_order_of_the_patches_does_not_matter():
    model = model_of("hf_vit", position_embedding_type="none")
    image = pixels(32)
    swapped = image.clone()
    swapped[..., :8, :8], swapped[..., 8:16, 8:16] = image[..., 8:16, 8:16], image[..., :8, :8]
    assert torch.allclose(model(image).logits, model(swapped).logits, atol=1e-5)
    learned = model_of("hf_vit")
    assert not torch.allclose(learned(image).logits, learned(swapped).logits, atol=1e-3)


@pytest.mark.parametrize("pooling", ["class", "mean", "class_and_mean"])
def test_classifiers_read_the_tokens_they_name(pooling):
    model = model_of("hf_vit", pooling=pooling, num_register_tokens=2)
    outputs = model.vit(pixels(32))
    tokens = outputs.last_hidden_state
    parts = {"class": tokens[:, 0], "mean": tokens[:, 3:].mean(1)}
    read = torch.cat(list(parts.values()), -1) if pooling == "class_and_mean" else parts[pooling]
    assert torch.equal(model(pixels(32)).logits, model.classifier(read))
    assert torch.equal(outputs.pooler_output, parts["mean" if pooling == "mean" else "class"])


def test_a_model_without_class_token_has_only_patches():
    model = shaken(type(model_of("hf_vit", "Model"))(config_of("hf_vit", use_class_token=False, pooling="mean")))
    assert model(pixels(32)).last_hidden_state.shape == (2, 16, 32)


def test_merging_reads_each_block_column_by_column():
    grid = torch.arange(6.0).reshape(1, 2, 3, 1)  # 0 1 2 / 3 4 5
    assert gather_neighbours(grid).tolist() == [[[[0, 3, 1, 4], [2, 5, 0, 0]]]]


@pytest.mark.parametrize("family", ["hf_vit", "hf_swin"])
def test_a_wrong_number_of_channels_is_named(family):
    with pytest.raises(ValueError, match="have 1 channels, the model takes 3"):
        model_of(family)(torch.randn(1, 1, 32, 32))
