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
"""From pictures to batches: colours, sizes, augmentation, mixing; what is random follows from seed and row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageOps
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler
from torchvision.transforms import InterpolationMode, v2

from .errors import UserError
from .recipe import Recipe


Pictures = Sequence[PILImage.Image]
# Augmentations whose random crops of the picture take the place of resizing it.
CROPS = {"randaugment"}


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Turn any picture into RGB exactly as the pipelines of transformers do: EXIF rotation, then `convert`."""
    return ImageOps.exif_transpose(image).convert("RGB")


def prepared(processor, pictures: Pictures) -> torch.Tensor:
    """Return `pixel_values` (B, 3, H, W) of RGB pictures of any sizes, by the image processor alone."""
    return processor(pictures, return_tensors="pt")["pixel_values"]


def output_size(processor) -> tuple[int, int]:
    """Return height and width in pixels of what an image processor makes of a square picture."""
    height, width = prepared(processor, [PILImage.new("RGB", (64, 64))]).shape[-2:]
    return height, width


def augmentation(name: str, processor) -> v2.Transform | None:
    """Return a transform to bytes (3, H, W) of the processor's size, from such bytes; if in `CROPS`, from RGB pictures.

    None is for no augmentation.
    """
    if name == "none":
        return None
    if name == "randaugment":
        size = output_size(processor)
        crop = v2.RandomResizedCrop(size, scale=(0.35, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True)
        return v2.Compose([v2.PILToTensor(), crop, v2.RandomHorizontalFlip(), v2.RandAugment()])
    if name == "photo":
        return v2.Compose([v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()])
    return v2.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1), shear=5)


def mixing(recipe: Recipe, num_labels: int) -> v2.Transform | None:
    """Return MixUp (2018), CutMix (2019), or either by chance, for pixels (B, 3, H, W) and labels; None without."""
    kinds = ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
    choices = [kind(alpha=alpha, num_classes=num_labels) for kind, alpha in kinds if alpha]
    return v2.RandomChoice(choices) if choices else None


class ImageRows(TorchDataset):
    """Rows of a split as `pixel_values` (3, H, W), `labels` and the `rows` they came from, for a DataLoader's workers.

    A key is the number of a row, or (epoch, row) as `EpochSampler` gives it: then the row is augmented, with random
    numbers that follow from seed, epoch and row alone, so that neither workers, processes nor resuming change them.
    Several labels an image become ones and zeros (num_labels,), what is mixed probabilities (num_labels,).
    """

    def __init__(
        self,
        split: Dataset,
        processor,
        num_labels: int = 0,
        multi_label: bool = False,
        recipe: Recipe | None = None,
        seed: int = 0,
    ):
        self.split, self.processor, self.num_labels, self.multi_label = split, processor, num_labels, multi_label
        self.seed = seed
        self.augment = augmentation(recipe.augmentation, processor) if recipe else None
        self.crops = recipe is not None and recipe.augmentation in CROPS
        self.erase = v2.RandomErasing(recipe.random_erasing) if recipe and recipe.random_erasing else None
        self.mix = mixing(recipe, num_labels) if recipe else None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[int] | list[tuple[int, int]]) -> list[dict[str, Any]]:
        draws = [key if isinstance(key, tuple) else (None, key) for key in keys]
        numbers = [row for _, row in draws]
        pictures, labels = zip(*map(self._read, numbers), strict=True)
        labels = self._labels(labels)
        if draws[0][0] is None:
            pixels = prepared(self.processor, pictures)
        else:
            pixels = self._augmented(pictures, draws)
            if self.mix is not None:
                with seeded(self.seed + 2, draws[0][0], *numbers):
                    pixels, labels = self.mix(pixels, labels)
        return [
            {"pixel_values": image, "labels": label, "rows": number}
            for image, label, number in zip(pixels, labels, torch.tensor(numbers), strict=True)
        ]

    def _read(self, number: int) -> tuple[PILImage.Image, Any]:
        try:
            row = self.split[number]
            return to_rgb(row["image"]), row["label"]
        except Exception as error:  # broken bytes can make Pillow's readers raise anything
            name = self.split["name"][number]
            raise UserError(f"{name} was readable when the run began and is not any more: put it back.") from error

    def _labels(self, labels: Sequence) -> torch.Tensor:
        """Class numbers (B,), or ones and zeros (B, num_labels) where an image has several."""
        if not self.multi_label:
            return torch.tensor(labels)
        ones = torch.zeros(len(labels), self.num_labels)
        for row, numbers in enumerate(labels):
            ones[row, numbers] = 1
        return ones

    def _augmented(self, pictures: Pictures, draws: list[tuple[int, int]]) -> torch.Tensor:
        if self.augment is None:
            pixels = prepared(self.processor, pictures)
        else:
            if not self.crops:
                pictures = self.processor(pictures, do_rescale=False, do_normalize=False, return_tensors="pt")
                pictures = pictures["pixel_values"]
            images = []
            for picture, draw in zip(pictures, draws, strict=True):
                with seeded(self.seed, *draw):
                    images.append(self.augment(picture))
            pixels = self.processor(images, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
        if self.erase is not None:  # after the normalisation, so that what is erased has the mean colour
            for image, draw in zip(pixels, draws, strict=True):
                with seeded(self.seed + 1, *draw):
                    image.copy_(self.erase(image))
        return pixels


def one_seed(*numbers: int) -> int:
    """Return a seed for torch that follows from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Within the block torch's random numbers follow from `numbers` alone; after it, as if nothing had been."""
    before = torch.random.get_rng_state()
    torch.random.default_generator.manual_seed(one_seed(*numbers))
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


class EpochSampler(Sampler):
    """Keys (epoch, row) in an order that follows from seed and epoch, as many as fill whole batches.

    With `weights`, one for each row, rows are drawn by them, again and again; without, each comes once at most.
    """

    def __init__(self, count: int, batch_size: int, seed: int, weights: torch.Tensor | None = None):
        self.count, self.length, self.seed, self.weights = count, count // batch_size * batch_size, seed, weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        with seeded(self.seed, self.epoch):
            if self.weights is None:
                order = torch.randperm(self.count)[: self.length]
            else:
                order = torch.multinomial(self.weights, self.length, replacement=True)
        return iter([(self.epoch, row) for row in order.tolist()])
