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
"""What a run starts from: a model with random or given weights, and the image processor that belongs to it."""

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel, ViTImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling

import hf_swin

from .data import ImageData, check_patch
from .errors import UserError
from .recipe import Recipe


CLASSES = {
    "swin": (hf_swin.HfSwinConfig, hf_swin.HfSwinForImageClassification),
    "swin_v2": (hf_swin.HfSwinV2Config, hf_swin.HfSwinV2ForImageClassification),
    "vit": (hf_swin.HfViTConfig, hf_swin.HfViTForImageClassification),
}
FAMILY_OF = {
    model_type: family
    for family, (config_class, _) in CLASSES.items()
    for model_type in (config_class.model_type, *config_class.stock_defaults)
}


def family_of(init: str) -> str:
    """Return the family of the weights in a folder or Hub repository; raises `UserError` if there are none of ours."""
    try:
        model_type = PreTrainedConfig.get_config_dict(init)[0].get("model_type")
    except (OSError, ValueError) as error:
        raise UserError(f"{init!r} holds no model: give --init a folder with a config.json or a Hub id.") from error
    if model_type not in FAMILY_OF:
        raise UserError(f"{init!r} is a {model_type!r} model: --init takes {', '.join(sorted(FAMILY_OF))}.")
    return FAMILY_OF[model_type]


def build_model(
    family: str, images: ImageData, recipe: Recipe, init: str | Path | None = None, image_size: int | None = None
) -> tuple[PreTrainedModel, Any]:
    """Return a model and its image processor; weights of `init` or random; `image_size` is a side in pixels.

    Raises `UserError` for a size that the model or the images do not bear.
    """
    config_class, model_class = CLASSES[family]
    names = dict(enumerate(images.labels))
    wanted = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    wanted["problem_type"] = "multi_label_classification" if images.multi_label else None
    wanted["drop_path_rate"] = recipe.drop_path
    size = {"image_size": image_size} if image_size else {}
    try:
        if init:
            model = model_class.from_pretrained(init, ignore_mismatched_sizes=True, **wanted, **size)
        else:
            model = model_class(config_class.for_image_size(image_size or images.image_size, **wanted))
    except ValueError as error:
        raise UserError(f"--image-size {image_size}: {error}.") from error
    processor = processor_of(init, model.config.image_size) if init else new_processor(model.config.image_size)
    if init and image_size:
        processor.size, processor.do_center_crop = {"height": image_size, "width": image_size}, False
    check_patch(images, model.config.patch_size)
    return model, processor


def new_processor(size: int | list[int], mean: float | list[float] = 0.5, std: float | list[float] = 0.5) -> Any:
    """Return a processor that resizes to a side, or height and width, in pixels, bicubically, and normalises."""
    height, width = (size, size) if isinstance(size, int) else size
    mean, std = ([number] * 3 if isinstance(number, float) else number for number in (mean, std))
    side, bicubic = {"height": height, "width": width}, PILImageResampling.BICUBIC
    return ViTImageProcessor(size=side, resample=bicubic, image_mean=mean, image_std=std, do_convert_rgb=True)


def processor_of(init: str | Path, size: int | list[int]) -> Any:
    """Return the processor that lies beside the weights; without one, what weights trained on ImageNet expect."""
    try:
        return AutoImageProcessor.from_pretrained(init)
    except (OSError, ValueError):
        return new_processor(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def with_adapters(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """Return the model with LoRA (2021) of a rank on queries and values: only these and the classifiers learn.

    Raises `UserError` if the package peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("the speed 'lora' needs the package peft: pip install peft.") from error
    heads = [name for name, _ in model.named_children() if name.endswith("classifier")]
    # The scaling of the paper's experiments on vision: twice the rank.
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"], modules_to_save=heads)
    return get_peft_model(model, config)
