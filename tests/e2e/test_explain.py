"""`hf-swin explain`: a picture and a page of a model and an image, as the model sees it."""

import errno
import json
import re

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from typer.testing import CliRunner

from hf_swin import explain_page
from hf_swin.cli import app
from hf_swin.explain import attention_maps, class_map
from hf_swin.explain_page import open_model, page, picture_of, read
from hf_swin.explain_pictures import explanation, looked_at, overlay
from hf_swin.starting import new_processor
from hf_swin.transforms import prepared

from tiny import FAMILIES, model_of


def saved(folder, family="hf_swin", head="ForImageClassification", size=64, **overrides):
    model_of(family, head, **overrides).save_pretrained(folder)
    new_processor(size, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]).save_pretrained(folder)
    return folder


@pytest.fixture
def photo(tmp_path):
    """Colours that differ everywhere, on a rectangle."""
    rows, columns = np.mgrid[0:50, 0:70]
    levels = np.stack([rows * 5, columns * 3, (rows + columns) * 2], -1).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def command(*words):
    return CliRunner().invoke(app, ["explain", *map(str, words)])


def data_of(text):
    return json.loads(re.search(r"^const data = (.*);$", text, flags=re.MULTILINE)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_writes_a_picture_and_a_page(family, photo, tmp_path):
    folder, out = saved(tmp_path / "model", family, size=32), tmp_path / "out"
    result = command(folder, photo, "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["explain.html", "explain.png"]
    assert Image.open(out / "explain.png").width > 1000
    data = data_of((out / "explain.html").read_text())
    assert data["size"] == [32, 32] and len(data["blocks"]) == (3 if family == "hf_vit" else 4)
    assert [view["name"] for view in data["views"]] == ["class map", *["rollout"] * (family == "hf_vit")]
    assert data["classToken"] == (family == "hf_vit")
    model, processor = open_model(folder)
    pixels = prepared(processor, [read(photo)])
    probabilities = model(pixels).logits.softmax(-1)[0]
    assert f"Answer: LABEL_{probabilities.argmax()}, {100 * probabilities.max():.1f} %" in result.output


def test_a_label_is_chosen_by_name_or_number(photo, tmp_path):
    names = {0: "cat", 1: "dog", 2: "3", 3: "hen", 4: "ant"}
    folder = saved(tmp_path / "model", id2label=names, label2id={name: key for key, name in names.items()})
    answer = re.match("Answer: (.*?),", command(folder, photo, "--out", tmp_path / "out").output)[1]
    for label, shown in {"hen": "hen", "4": "ant", "3": "3"}.items():  # a name goes before a number
        result = command(folder, photo, "--label", label, "--out", tmp_path / "out")
        assert result.exit_code == 0
        # A label that was asked for is not passed off as the model's answer, neither here nor on the page.
        start = f"Answer: {shown}, " if shown == answer else f"Asked for: {shown}, "
        for text in (result.output, (tmp_path / "out" / "explain.html").read_text()):
            assert start in text and re.search(f"(A|; a)nswer: {answer}, ", text)
    result = command(folder, photo, "--label", "cow", "--out", tmp_path / "none")
    assert result.exit_code == 2 and "cow" in result.output and "cat, dog" in result.output
    assert not (tmp_path / "none").exists()


def test_another_size_is_what_the_model_sees(photo, tmp_path):
    folder = saved(tmp_path / "model")
    assert command(folder, photo, "--image-size", 96, "--out", tmp_path / "out").exit_code == 0
    data = data_of((tmp_path / "out" / "explain.html").read_text())
    assert data["size"] == [96, 96] and data["blocks"][0]["grid"] == [24, 24] and data["blocks"][2]["stride"] == [8, 8]


@pytest.mark.parametrize("stock", [False, True])
def test_a_model_without_a_classifier_shows_its_attention(stock, photo, tmp_path):
    folder = tmp_path / "model"
    if stock:
        config = transformers.ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
        )
        transformers.ViTModel(config).save_pretrained(folder)
        new_processor(32).save_pretrained(folder)
    else:
        saved(folder, "hf_vit", "Model", size=32)
    result = command(folder, photo, "--out", tmp_path / "out")
    assert result.exit_code == 0 and "no classifier" in result.output
    assert [view["name"] for view in data_of((tmp_path / "out" / "explain.html").read_text())["views"]] == ["rollout"]
    result = command(folder, photo, "--label", "cat", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "no classifier" in result.output


def test_mistakes_are_said_in_one_sentence(photo, tmp_path):
    folder = saved(tmp_path / "model")
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:60])
    transformers.ResNetConfig().save_pretrained(tmp_path / "resnet")
    (tmp_path / "empty").mkdir()
    for words, sentence in {
        (folder, broken): "broken.png is not readable as a picture",
        (tmp_path / "resnet", photo): "is a 'resnet' model: explain takes",
        (tmp_path / "empty", photo): "holds no model",
    }.items():
        result = command(*words, "--out", tmp_path / "out")
        assert result.exit_code == 2 and sentence in " ".join(result.output.split()), result.output
    assert not (tmp_path / "out").exists()


def test_nothing_half_written_stays(photo, tmp_path, monkeypatch):
    def full_disk(figure, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    result = command(saved(tmp_path / "model"), photo, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "the disk is full" in result.output
    assert list((tmp_path / "out").iterdir()) == []


def test_the_picture_is_the_one_the_model_sees(photo, tmp_path):
    _, processor = open_model(saved(tmp_path / "model"))
    pixels = prepared(processor, [read(photo)])
    seen = picture_of(processor, pixels)
    assert seen.size == (64, 64)
    assert (prepared(processor, [seen]) - pixels).abs().max() < 0.02  # less than a grey level


def test_a_page_gives_the_weights_back_and_no_name_can_leave_its_place(monkeypatch):
    model, pixels = model_of("hf_swin_v2"), torch.randn(1, 3, 60, 52)
    maps = attention_maps(model, pixels)
    seen = Image.new("RGB", (52, 60))
    nasty = "</script><script>alert(1)</script>"
    text = page(nasty, seen, maps, class_map(model, pixels), nasty)
    assert nasty not in text and text.count("<script>") == 1
    for block, attention in zip(data_of(text)["blocks"], maps, strict=True):
        scaled, largest = (explain_page.base64.b64decode(block[key]) for key in ("weights", "largest"))
        largest = np.frombuffer(largest, "<f4").reshape(*attention.weights.shape[:3], 1)
        weights = np.frombuffer(scaled, "u1").reshape(attention.weights.shape) * largest / 255
        assert (abs(weights - attention.weights) <= 0.002 * largest + 1e-9).all()
        assert np.array_equal(
            np.frombuffer(explain_page.base64.b64decode(block["tokens"]), "<i4"), attention.tokens.ravel()
        )
        assert (block["regions"] is None) == (not any(attention.layout.shift))
    monkeypatch.setattr(explain_page, "MOST", 1000)
    text = page("photo", seen, maps)
    assert all(block["heads"] == 1 for block in data_of(text)["blocks"]) and "it has their mean" in text


def test_regions_of_the_page_are_the_nine_of_the_paper():
    attention = attention_maps(model_of("hf_swin", window_size=4, image_size=64), torch.randn(1, 3, 64, 64))[1]
    regions = np.array(explain_page._regions(attention)).reshape(attention.grid)
    # The roll by 2 brings the first two rows behind the last two, whose window they then fill.
    axis = np.array([2, 2, *[0] * 12, 1, 1])
    assert np.array_equal(regions, 3 * axis[:, None] + axis)


@pytest.mark.parametrize("size", [(64, 64), (60, 100)])
@pytest.mark.parametrize("family", FAMILIES)
def test_panels_show_each_block_at_its_place(family, size):
    model = model_of(family)
    maps = attention_maps(model, torch.randn(1, 3, *size))
    figure = explanation(Image.new("RGB", size[::-1]), maps, class_map(model, torch.randn(1, 3, *size)), "a cat, 12 %")
    titled = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.axison}
    views = ["what the model sees", "class map", *["rollout of all blocks"] * (family == "hf_vit")]
    assert list(titled) == [*views, *(attention.name for attention in maps)]
    for attention in maps:
        drawn = titled[attention.name].images[-1]
        assert np.array_equal(drawn.get_array(), looked_at(attention))
        assert drawn.get_extent()[1] + 0.5 == attention.grid[1] * attention.stride[1] >= size[1]
        assert titled[attention.name].get_xlim() == (-0.5, size[1] - 0.5)


def test_a_map_without_differences_can_be_drawn():
    figure = explanation(Image.new("RGB", (32, 32)), attention_maps(model_of("hf_vit"), torch.randn(1, 3, 32, 32)))
    axes = figure.axes[0]
    overlay(axes, Image.new("RGB", (32, 32)), np.zeros((4, 4)), (8, 8))
    figure.canvas.draw()
    assert axes.images[-1].get_array().shape == (4, 4)
