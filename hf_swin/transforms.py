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
"""From pictures to pixels: colours, resizing, augmentation."""

from collections.abc import Callable

from PIL import Image as PILImage
from PIL import ImageOps
from torchvision.transforms import v2


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Turn any picture into RGB exactly as the pipelines of transformers do: EXIF rotation, then `convert`."""
    return ImageOps.exif_transpose(image).convert("RGB")


def preprocessing(processor, augmentation: str = "none") -> Callable[[dict], dict]:
    """Return a `Dataset.with_transform` function: `image`, `label` → `pixel_values` (3, H, W), `labels`.

    Without augmentation this is the image processor alone. With it, the processor resizes, the augmentation works on
    the resized bytes, and the processor normalises, so that training and evaluation share every other step.
    """
    augment = AUGMENTATIONS[augmentation]()

    def transform(batch: dict) -> dict:
        images = [to_rgb(image) for image in batch["image"]]
        if augment is not None:
            resized = processor(images, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
            images = [augment(image) for image in resized]
        pixels = processor(images, do_resize=augment is None, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "labels": batch["label"]}

    return transform


def _light() -> v2.Transform:
    return v2.RandomAffine(degrees=10, translate=(0.08, 0.08), scale=(0.9, 1.1), shear=5)


def _photo() -> v2.Transform:
    return v2.Compose([v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()])


AUGMENTATIONS: dict[str, Callable[[], v2.Transform | None]] = {"none": lambda: None, "light": _light, "photo": _photo}
