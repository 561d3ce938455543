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
"""Pixels are the pipelines', and augmentation follows its seed."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor
from transformers.image_utils import load_image

from hf_swin.transforms import AUGMENTATIONS, preprocessing, to_rgb


MODES = ("L", "RGB", "RGBA", "P")


def picture(mode="RGB", size=(40, 36), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels[..., 3] = 255
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", [*MODES, "LA", "CMYK"])
def test_training_pixels_are_the_pipelines_pixels(mode):
    """`pipeline` opens every picture with `load_image` and hands it to the processor."""
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, resample=3, do_convert_rgb=True)
    image = picture(mode)
    ours = preprocessing(processor)({"image": [image], "label": [0]})["pixel_values"]
    theirs = processor(load_image(image), return_tensors="pt")["pixel_values"]
    assert torch.equal(ours, theirs)


def test_exif_rotation_is_applied():
    image = picture(size=(40, 20))
    image.getexif()[0x0112] = 6
    assert to_rgb(image).size == (20, 40)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_keeps_size_and_range_and_follows_the_seed(name):
    processor = ViTImageProcessor(size={"height": 24, "width": 28})
    transform = preprocessing(processor, name)
    batch = {"image": [picture(seed=index) for index in range(3)], "label": [0, 1, 0]}
    torch.manual_seed(3)
    first = transform(batch)["pixel_values"]
    torch.manual_seed(3)
    assert torch.equal(first, transform(batch)["pixel_values"])
    assert first.shape == (3, 3, 24, 28)
    assert first.min() >= -1 and first.max() <= 1
