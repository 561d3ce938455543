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
"""A trained classifier at work: opened with its image processor, shown pictures of any size, described."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from .errors import UserError, one_line
from .starting import CLASSES, FAMILY_OF
from .transforms import prepared, to_rgb


# Processes that decode and resize, if the user does not say how many.
WORKERS = min(8, os.cpu_count() or 1)


def open_classifier(
    source: str | Path, image_size: int | None = None, device_map: str | None = None, dtype: str = "auto"
) -> tuple[PreTrainedModel, Any]:
    """Return the model of a folder or Hub repository and its image processor.

    ViT and Swin of transformers open in this package's classes, others in their own. Without a `device_map` the model
    is put on the accelerator, if there is one. `image_size` is what `resize_to` takes. Raises `UserError` for what is
    not there or no classifier.
    """
    cls = _class_of(source)
    try:
        processor = AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        remedy = "put the preprocessor_config.json of its publisher beside its weights"
        raise UserError(f"{source} does not say how to prepare a picture: {remedy}.") from error
    try:
        model, info = cls.from_pretrained(source, device_map=device_map, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source} does not open as an image classifier: {one_line(error)}") from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise UserError(f"{source} is no image classifier, it lacks {names}: fine-tune it first.")
    if model.config.num_labels < 1 or model.config.problem_type == "regression":
        raise UserError(f"{source} has no labels to choose from: give a classifier.")
    if device_map is None and torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    if image_size:
        resize_to(processor, image_size)
    return model, processor


def _class_of(source: str | Path) -> Any:
    try:
        model_type = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    except (OSError, ValueError):
        model_type = None
    if model_type is None:
        raise UserError(f"{source} holds no model: give a folder with a config.json or a Hub id.")
    return CLASSES[FAMILY_OF[model_type]][1] if model_type in FAMILY_OF else AutoModelForImageClassification


def resize_to(processor: Any, side: int) -> None:
    """Scale the sizes of an image processor: the shorter side of what the model sees becomes `side` pixels.

    A crop keeps its share of the picture: 256 cropped to 224 becomes 439 cropped to 384.
    """
    size = numbers_of(processor.size)
    crop = numbers_of(processor.crop_size) if getattr(processor, "do_center_crop", None) else {}
    scale = side / min((crop or size).values())
    processor.do_resize = True
    processor.size = {name: round(scale * number) for name, number in size.items()}
    if crop:
        processor.crop_size = {name: round(scale * number) for name, number in crop.items()}


def numbers_of(size: Any) -> dict[str, int]:
    """Return the numbers that the size of an image processor has, by name, such as `height` or `shortest_edge`."""
    return {name: number for name, number in (size if isinstance(size, Mapping) else vars(size)).items() if number}


def chooses_several(config: PreTrainedConfig) -> bool:
    """Say whether each label has a probability of its own, as the pipelines of transformers decide it."""
    return config.problem_type == "multi_label_classification" or config.num_labels == 1


class _Pixels(Dataset):
    """Pictures as (number, pixels (3, H, W)), or (number, None) for what is not readable.

    As arrays, which workers send through a pipe: tensors take shared memory, and hang where a container has too little.
    """

    def __init__(self, pictures: Sequence[Any], processor: Any):
        self.pictures, self.processor = pictures, processor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> tuple[int, np.ndarray | None]:
        try:
            picture = self.pictures[number]
            if isinstance(picture, str | Path):
                with PILImage.open(picture) as opened:
                    picture = to_rgb(opened)
            else:
                picture = to_rgb(picture)
        except Exception:  # a broken file makes the decoders of Pillow raise anything
            return number, None
        return number, prepared(self.processor, [picture])[0].numpy()


def classify(
    model: PreTrainedModel, processor: Any, pictures: Sequence[Any], batch_size: int = 32, workers: int = 0
) -> Iterator[tuple[list[int], torch.Tensor, list[int]]]:
    """Yield for each batch the numbers of its pictures, their probabilities (n, labels), float32 on the CPU, and the
    numbers of those that are not readable, in the order of `pictures`.

    `pictures` are paths, PIL images, or a column of a dataset, of any sizes and modes; `workers` processes decode and
    resize them, and no more than a few batches are held at a time. The model is used as it is: evaluation mode is the
    caller's, and that of `from_pretrained`. Raises `UserError` if the model refuses a size.
    """
    loader = DataLoader(_Pixels(pictures, processor), batch_size, num_workers=workers, collate_fn=list)
    for batch in loader:
        good = [(number, pixels) for number, pixels in batch if pixels is not None]
        probabilities = torch.empty(len(good), model.config.num_labels)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for row, (_, pixels) in enumerate(good):
            by_shape.setdefault(pixels.shape, []).append(row)
        for rows in by_shape.values():
            pixel_values = torch.from_numpy(np.stack([good[row][1] for row in rows]))
            probabilities[rows] = _probabilities(model, pixel_values)
        yield [number for number, _ in good], probabilities, [number for number, pixels in batch if pixels is None]


@torch.inference_mode()
def _probabilities(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    try:
        logits = model(pixel_values.to(model.device, model.dtype)).logits.float().cpu()
    except ValueError as error:
        height, width = pixel_values.shape[-2:]
        message = f"the model does not take pictures of {width}x{height} pixels, see --image-size: {one_line(error)}"
        raise UserError(message) from error
    return logits.sigmoid() if chooses_several(model.config) else logits.softmax(-1)


def protocol(model: PreTrainedModel, processor: Any) -> dict[str, Any]:
    """Return what happens to a picture on its way to the model, and where the model runs, in words and numbers."""
    crops = getattr(processor, "do_center_crop", None)
    steps = {
        "resize": _in_words(processor.size) if processor.do_resize else None,
        "interpolation": PILImage.Resampling(processor.resample).name.lower() if processor.do_resize else None,
        "crop": f"centre {_in_words(processor.crop_size)}" if crops else None,
        "rescale": processor.rescale_factor if processor.do_rescale else None,
        "mean": list(processor.image_mean) if processor.do_normalize else None,
        "std": list(processor.image_std) if processor.do_normalize else None,
    }
    if getattr(processor, "crop_pct", None):  # ConvNeXt enlarges by it before a crop, below 384 pixels
        steps["crop_pct"] = processor.crop_pct
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    return {**steps, "device": ", ".join(devices), "dtype": str(model.dtype).removeprefix("torch.")}


def _in_words(size: Any) -> str:
    numbers = numbers_of(size)
    if set(numbers) == {"height", "width"}:
        return f"{numbers['height']}x{numbers['width']} (height x width)"
    return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in numbers.items())
