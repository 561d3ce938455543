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
"""The model card of a fine-tuned model."""

from dataclasses import asdict
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .recipe import Recipe


TEXT = """\
---
{header}
---

# {name}

{sentence}

| on {unseen} unseen images | |
| --- | --- |
| accuracy | {accuracy:.2%} |
| macro-F1 | {macro_f1:.4f} |
| loss (cross-entropy, label smoothing {label_smoothing}) | {loss:.4f} |

![Loss and accuracy per epoch](training_curve.png)

![Confusion matrix](confusion_matrix.png)

![Predictions on unseen images](predictions.png)

## How to use it

```python
import hf_swin  # registers the model type with the Auto classes
from transformers import pipeline

classify = pipeline("image-classification", model="{name}")
classify("picture.png")
```

```python
import hf_swin
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("{name}")
model = AutoModelForImageClassification.from_pretrained("{name}")
logits = model(**processor(image, return_tensors="pt")).logits
```

`{name}` stands for this folder, or for the repository it was uploaded to.

## Data

{images} training images and {unseen} test images in {classes} classes: {labels}. Images are turned to RGB, resized to
{height} x {width} pixels and normalised as `preprocessor_config.json` says; training and evaluation share these steps.

## Recipe

AdamW, linear warm-up, cosine decay; no weight decay on biases, norms, tokens and position tables. Seed {seed},
{seconds} s.

{recipe}
"""


def model_card(name: str, config: Any, processor: Any, recipe: Recipe, metrics: dict[str, Any]) -> ModelCard:
    """Build the card of a fine-tuned model from what `metrics.json` holds; `name` is the folder or repository."""
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=metrics["data"],
            dataset_name=metrics["data"],
            dataset_split="test",
            metric_type=key,
            metric_name=label,
            metric_value=metrics[metric],
        )
        for key, label, metric in (("accuracy", "Accuracy", "accuracy"), ("f1", "Macro F1", "macro_f1"))
    ]
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["image-classification", "vision", "hf_swin", config.model_type],
        metrics=["accuracy", "f1"],
        base_model=metrics["init"],
        eval_results=results,
    )
    start = f"the weights of `{metrics['init']}`" if metrics["init"] else "random weights"
    height, width = _pixels(processor)
    content = TEXT.format(
        header=data.to_yaml(),
        name=name,
        sentence=f"A `{config.model_type}` image classifier, trained on `{metrics['data']}` from {start}.",
        unseen=metrics["test_images"],
        images=metrics["train_images"],
        classes=len(metrics["labels"]),
        labels=", ".join(f"`{label}`" for label in metrics["labels"]),
        height=height,
        width=width,
        recipe=_table(asdict(recipe)),
        **{key: metrics[key] for key in ("accuracy", "macro_f1", "loss", "seed", "seconds")},
        label_smoothing=recipe.label_smoothing,
    )
    return ModelCard(content)


def _pixels(processor: Any) -> tuple[int, int]:
    size = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else processor.size
    side = size.get("shortest_edge")
    return (side, side) if side else (size["height"], size["width"])


def _table(values: dict[str, Any]) -> str:
    rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in values.items()]
    return "\n".join(["| | |", "| --- | --- |", *rows])
