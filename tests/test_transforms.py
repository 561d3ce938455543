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

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from transformers import ViTImageProcessor
from transformers.image_utils import load_image

from hf_swin.recipe import FIELDS, recipe_for
from hf_swin.transforms import EpochSampler, ImageRows, output_size, prepared, seeded, to_rgb


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
    ours = prepared(processor, [to_rgb(image)])
    theirs = processor(load_image(image), return_tensors="pt")["pixel_values"]
    assert torch.equal(ours, theirs)


def test_exif_rotation_is_applied():
    image = picture(size=(40, 20))
    image.getexif()[0x0112] = 6
    assert to_rgb(image).size == (20, 40)


AUGMENTATIONS = FIELDS["augmentation"].metadata["choices"]
PROCESSOR = ViTImageProcessor(size={"height": 24, "width": 28}, do_convert_rgb=True)


def recipe(**numbers):
    return recipe_for("vit", 10, pretrained=False, **numbers)


def split_of(count=6, label=lambda index: index % 2):
    pictures = [picture(seed=index, size=(40 + index, 36)) for index in range(count)]
    return datasets.Dataset.from_dict({"image": pictures, "label": [label(index) for index in range(count)]})


def stacked(rows):
    return torch.stack([row["pixel_values"] for row in rows])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_follows_seed_epoch_and_row_alone(name):
    rows = ImageRows(split_of(), PROCESSOR, 2, recipe=recipe(augmentation=name, random_erasing=0.5), seed=3)
    keys = [(1, 4), (1, 0), (1, 2)]
    first = stacked(rows.__getitems__(keys))
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = torch.stack([rows[key]["pixel_values"] for key in reversed(keys)]).flip(0)
    assert torch.equal(first, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.shape == (3, 3, 24, 28) and first.min() >= -1 and first.max() <= 1
    assert not torch.equal(first, stacked(rows.__getitems__([(2, row) for _, row in keys])))
    other = ImageRows(split_of(), PROCESSOR, 2, recipe=recipe(augmentation=name, random_erasing=0.5), seed=4)
    assert not torch.equal(first, stacked(other.__getitems__(keys)))


def test_rows_by_their_number_are_not_augmented():
    split = split_of()
    rows = ImageRows(split, PROCESSOR, 2, recipe=recipe(augmentation="randaugment", random_erasing=1))
    expected = prepared(PROCESSOR, [to_rgb(image) for image in split["image"]])
    assert torch.equal(stacked(rows.__getitems__(list(range(6)))), expected)
    assert [rows[index]["labels"] for index in range(6)] == [0, 1, 0, 1, 0, 1]


def test_workers_change_nothing():
    rows = ImageRows(split_of(), PROCESSOR, 2, recipe=recipe(augmentation="randaugment"), seed=3)
    sampler = EpochSampler(6, 2, seed=0)
    alone, helped = (list(DataLoader(rows, batch_size=2, sampler=sampler, num_workers=workers)) for workers in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_random_crops_come_from_the_picture_itself():
    """A crop of the resized picture would have thrown its detail away."""
    fine = Image.fromarray(np.indices((480, 560)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    split = datasets.Dataset.from_dict({"image": [fine], "label": [0]})
    rows = ImageRows(split, PROCESSOR, 2, recipe=recipe(augmentation="randaugment"))
    assert rows[(0, 0)]["pixel_values"].shape == (3, 24, 28)
    assert output_size(PROCESSOR) == (24, 28)


def test_several_labels_become_ones_and_zeros():
    rows = ImageRows(split_of(3, lambda index: list(range(index))), PROCESSOR, 4, multi_label=True)
    assert [rows[index]["labels"].tolist() for index in range(3)] == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]


def test_every_row_comes_once_in_whole_batches_and_another_order_each_epoch():
    sampler = EpochSampler(10, 4, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert len(first) == len(second) == len(sampler) == 8
    assert len({row for _, row in first}) == 8 and {epoch for epoch, _ in second} == {1}
    assert [row for _, row in first] != [row for _, row in second]
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_weights_draw_rare_rows_as_often_as_common_ones():
    weights = torch.tensor([1.0] * 90 + [9.0] * 10)
    rows = [row for epoch in range(40) for _, row in _epoch(EpochSampler(100, 50, 0, weights), epoch)]
    assert np.mean(np.array(rows) >= 90) == pytest.approx(0.5, abs=0.03)


def _epoch(sampler, epoch):
    sampler.set_epoch(epoch)
    return sampler


def mixed_batch(epoch=0, seed=0, count=3, **numbers):
    """Images that are 0, 1, 2 … all over, mixed, with their labels of the same numbers."""
    rows = ImageRows(split_of(count, lambda index: index), PROCESSOR, count, recipe=recipe(**numbers), seed=seed)
    rows._augmented = lambda pictures, draws: torch.stack([torch.full((3, 24, 28), float(row)) for _, row in draws])
    return default_collate(rows.__getitems__([(epoch, row) for row in range(count)]))


def test_without_mixing_labels_stay_numbers():
    assert mixed_batch()["labels"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_as_much_as_pixels(kind):
    mixed, again = mixed_batch(**{kind: 1.0}), mixed_batch(**{kind: 1.0})
    assert torch.equal(mixed["pixel_values"], again["pixel_values"])
    assert mixed["labels"].shape == (3, 3) and torch.allclose(mixed["labels"].sum(1), torch.ones(3))
    assert torch.allclose(mixed["pixel_values"].mean((1, 2, 3)), mixed["labels"] @ torch.arange(3.0), atol=1e-6)
    assert mixed["labels"].max() < 1
    assert not torch.equal(mixed["labels"], mixed_batch(epoch=1, **{kind: 1.0})["labels"])


def test_both_kinds_of_mixing_take_turns():
    blended = set()
    for seed in range(20):
        pixels = mixed_batch(seed=seed, mixup=1.0, cutmix=1.0)["pixel_values"]
        blended.add(bool((pixels != pixels.round()).any()))
    assert blended == {True, False}


def test_images_by_their_number_are_not_mixed():
    rows = ImageRows(split_of(), PROCESSOR, 2, recipe=recipe(mixup=1.0, cutmix=1.0))
    assert [row["labels"].item() for row in rows.__getitems__([0, 1, 2])] == [0, 1, 0]


def test_seeded_numbers_leave_the_others_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = torch.rand(1)
    with seeded(1, 2, 3):
        torch.rand(5)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
