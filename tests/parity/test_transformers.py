"""A folder that a stock class of transformers saved opens in ours and gives the stock numbers."""

import logging

import pytest
import torch
import transformers
from safetensors.torch import load_file

import hf_swin

from compare import assert_close
from tiny import STOCK, pixels


# fit the window and patch, larger, padded, rectangular; the stock Swin cannot run below its window (D2)
SIZES = {
    "Swin": [(64, 64), (96, 96), (72, 104), (63, 33), (32, 96)],
    "ViT": [(32, 32), (48, 48), (32, 64), (56, 40)],
}
FIELDS = ["logits", "reconstruction", "last_hidden_state", "hidden_states", "reshaped_hidden_states", "feature_maps"]
identify = [f"{stock}-{index}" for index, stock in enumerate(STOCK)]


def sizes_of(stock):
    if "MaskedImage" in stock.name:  # the stock decoders know squares only (D15)
        return [(64, 64), (96, 96)] if "Swin" in stock.name else [(32, 32)]
    sizes = SIZES["Swin" if "Swin" in stock.name else "ViT"]
    if stock.numbers.get("use_absolute_embeddings"):  # the stock class loses the patch that padding made
        return [(height, width) for height, width in sizes if height % 4 == width % 4 == 0]
    return sizes


@pytest.fixture(scope="module", params=STOCK, ids=identify)
def pair_of_models(request, tmp_path_factory):
    stock = request.param
    folder = tmp_path_factory.mktemp("stock")
    stock.build().save_pretrained(folder)
    ours = getattr(hf_swin, stock.ours).from_pretrained(folder)
    return stock, folder, ours


def run_stock(stock, folder, pixel_values, **kwargs):
    """Runs a fresh stock model, because the stock Swin remembers what it saw (D2)."""
    return getattr(transformers, stock.name).from_pretrained(folder)(pixel_values, **stock.call, **kwargs)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_outputs_equal_the_stock_class(pair_of_models, implementation):
    stock, folder, ours = pair_of_models
    ours.set_attn_implementation(implementation)
    for size in sizes_of(stock):
        with torch.no_grad():
            theirs = run_stock(stock, folder, pixels(*size), output_hidden_states=True)
            mine = ours(pixels(*size), output_hidden_states=True)
        compared = [name for name in FIELDS if getattr(theirs, name, None) is not None]
        if stock.name == "Swinv2Backbone":
            compared.remove("hidden_states")  # the stock class gives tokens there, and maps for Swin
        assert compared
        for name in compared:
            assert_close(getattr(mine, name), getattr(theirs, name), what=f"{stock} {size} {name}")


def test_gradients_equal_the_stock_class(pair_of_models):
    stock, folder, ours = pair_of_models
    size = sizes_of(stock)[-1]
    gradients = []
    for run in (lambda x: run_stock(stock, folder, x), ours):
        pixel_values = pixels(*size).requires_grad_()
        outputs = run(pixel_values)
        answer = next(getattr(outputs, name) for name in FIELDS if getattr(outputs, name, None) is not None)
        answer = answer[-1] if isinstance(answer, tuple) else answer
        weights = torch.linspace(-1, 1, answer.numel()).reshape(answer.shape)
        gradients.append(torch.autograd.grad((answer * weights).sum(), pixel_values)[0])
    assert_close(gradients[1], gradients[0], what=f"{stock} gradient of the pixels")


@pytest.mark.parametrize("name", ["ViT", "Swin", "Swinv2"])
def test_parameter_gradients_equal_the_stock_class(name, tmp_path):
    stock = next(stock for stock in STOCK if stock.name == f"{name}ForImageClassification")
    theirs = stock.build()
    theirs.save_pretrained(tmp_path)
    ours = getattr(hf_swin, stock.ours).from_pretrained(tmp_path)
    gradients = []
    for model in (theirs, ours):
        model(pixels(*sizes_of(stock)[0]), labels=torch.tensor([1, 3])).loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.grad)
        model.save_pretrained(tmp_path)  # both write the published names
        gradients.append(load_file(tmp_path / "model.safetensors"))
    assert gradients[0].keys() == gradients[1].keys()
    for key in gradients[0]:
        assert_close(gradients[1][key], gradients[0][key], what=key)


def test_a_stock_folder_opens_without_a_word(pair_of_models, caplog):
    stock, folder, _ = pair_of_models
    transformers.utils.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            _, info = getattr(hf_swin, stock.ours).from_pretrained(folder, output_loading_info=True)
    finally:
        transformers.utils.logging.disable_propagation()
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    assert not caplog.records, [record.getMessage() for record in caplog.records]


def test_masked_image_loss_equals_the_stock_class(tmp_path):
    for stock in (s for s in STOCK if "MaskedImage" in s.name):
        theirs = stock.build()
        theirs.save_pretrained(tmp_path / stock.name)
        ours = getattr(hf_swin, stock.ours).from_pretrained(tmp_path / stock.name)
        size = sizes_of(stock)[0]
        patches = (size[0] // ours.config.patch_size) ** 2
        masked = torch.rand(2, patches) < 0.5
        with torch.no_grad():
            expected = theirs(pixels(*size), bool_masked_pos=masked)
            actual = ours(pixels(*size), bool_masked_pos=masked)
        assert_close(actual.loss, expected.loss, what=f"{stock} loss")
        assert_close(actual.reconstruction, expected.reconstruction, what=f"{stock} reconstruction")


def test_what_ours_saves_opens_in_the_stock_class(tmp_path):
    """The layout on disk is the published one, so a saved Swin becomes a stock one by its config alone."""
    for stock in (s for s in STOCK if s.name in ("SwinModel", "Swinv2Model", "ViTForImageClassification")):
        theirs = stock.build()
        theirs.save_pretrained(tmp_path / "theirs")
        getattr(hf_swin, stock.ours).from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
        again, info = type(theirs).from_pretrained(tmp_path / "ours", config=theirs.config, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        for name, parameter in theirs.state_dict().items():
            assert torch.equal(parameter, again.state_dict()[name]), name
