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
"""The model card: what a folder holds, told to those who find it on the Hub."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import safe_open

from .record import PICTURES, REPORT, SPEEDS, counts_of, score_names
from .registration import FAMILIES


@dataclass(frozen=True)
class Role:
    """What a class is, the Hub's word for its task, its Auto class, and what to read of its answer."""

    noun: str
    task: str | None
    auto: str
    answer: str


# How the name of a class ends -> its role.
ROLES = {
    "ForImageClassification": Role(
        "image classifier", "image-classification", "AutoModelForImageClassification", "logits"
    ),
    "ForMaskedImageModeling": Role("masked-image model", None, "AutoModelForMaskedImageModeling", "reconstruction"),
    "Backbone": Role("backbone", None, "AutoBackbone", "feature_maps"),
    "Model": Role("image encoder", "image-feature-extraction", "AutoModel", "last_hidden_state"),
}
# Model type -> what it is called, and our model type that opens it.
TYPES = {
    "hf_vit": ("Vision Transformer", "hf_vit"),
    "hf_swin": ("Swin Transformer", "hf_swin"),
    "hf_swin_v2": ("Swin Transformer V2", "hf_swin_v2"),
    "vit": ("Vision Transformer", "hf_vit"),
    "deit": ("DeiT", "hf_vit"),
    "dinov2": ("DINOv2", "hf_vit"),
    "dinov2_with_registers": ("DINOv2 with registers", "hf_vit"),
    "swin": ("Swin Transformer", "hf_swin"),
    "swinv2": ("Swin Transformer V2", "hf_swin_v2"),
}
SHOWN_KEYS = 20


def model_card(folder: Path, name: str, license: str | None = None) -> ModelCard:
    """Build the card of a folder from its `config.json` and, where they are there, what a run or a conversion noted.

    `name` is the folder or repository that the card's code opens; `license` goes before what a conversion noted.
    """
    config = read_json(folder / "config.json")
    run, conversion = read_json(folder / "metrics.json"), read_json(folder / "conversion.json")
    license = license or conversion.get("license")
    base = run.get("init") or conversion.get("base_model")
    results = _results(run, conversion)
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag=role_of(config).task,
        tags=["vision", "hf_swin", config["model_type"]],
        license=license,
        base_model=base if _is_repository(base) else None,
        datasets=[run["data"]] if _is_repository(run.get("data")) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        eval_results=results or None,
    )
    paragraphs = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}",
        *_what(folder, config, run, conversion),
        *_use(folder, config, name),
        *_data(folder, run, conversion),
        *_metrics(folder, run, results),
        *_origin(license, base),
        *_report(conversion),
        *_evidence(folder, name),
    ]
    return ModelCard("\n\n".join(paragraphs) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds, or nothing if there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def role_of(config: dict[str, Any]) -> Role:
    """Return the role of the class that was saved."""
    saved = (config.get("architectures") or ["Model"])[0].removesuffix("WithTeacher")
    return next((role for suffix, role in ROLES.items() if saved.endswith(suffix)), ROLES["Model"])


def _is_repository(name: str | None) -> bool:
    """Whether a name can be one on the Hub, which refuses a card that gives a path as base model or data."""
    if not name or "/" not in name or Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _results(run: dict[str, Any], conversion: dict[str, Any]) -> list[EvalResult]:
    task, found = "image-classification", []
    if run:
        data = {"task_type": task, "dataset_type": run["data"], "dataset_name": run["data"], "dataset_split": "test"}
        for key, value in run["scores"].items():
            if key != "loss":
                kind, label = score_names(key)
                found.append(EvalResult(**data, metric_type=kind, metric_name=label, metric_value=value))
    top1 = conversion.get("top1")
    if top1 is not None:
        data = {"dataset_type": "imagenet-1k", "dataset_name": "ImageNet-1k", "dataset_split": "validation"}
        metric = {"metric_type": "accuracy", "metric_name": "Top-1 accuracy, as published"}
        value = round(top1 / 100, 6) if top1 > 1 else top1  # tables of publishers are in per cent
        found.append(EvalResult(task_type=task, **data, **metric, metric_value=value))
    return found


def _what(folder: Path, config: dict[str, Any], run: dict[str, Any], conversion: dict[str, Any]) -> Iterator[str]:
    kind, role = config["model_type"], role_of(config)
    name = TYPES.get(kind, (kind, None))[0]
    size = config.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    parts = [f"{count_parameters(folder):,} parameters", f"made for images of {height} x {width} pixels"]
    if role.task == "image-classification" and "id2label" in config:
        parts.insert(0, f"{len(config['id2label'])} labels")
    yield f"A {name} (`{kind}`), {role.noun}: {', '.join(parts)}."
    if run:
        start = f"the weights of `{run['init']}`" if run["init"] else "random weights"
        yield f"Trained on `{run['data']}` from {start}."
    if conversion:
        yield f"Converted from `{conversion['source']}` (format `{conversion['format']}`)."


def count_parameters(folder: Path) -> int:
    """Return how many numbers the weights of a folder are, read from the heads of its files."""
    count = 0
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(key).get_shape()) for key in list(file.keys()))
    return count


def _use(folder: Path, config: dict[str, Any], name: str) -> Iterator[str]:
    kind, role = config["model_type"], role_of(config)
    processed = (folder / "preprocessor_config.json").exists()
    ours = FAMILIES[TYPES[kind][1]][role.auto] if kind in TYPES else None
    yield "## How to use it"
    if kind in FAMILIES:
        yield "With the package, whose import makes the Auto classes know the model:"
        yield _code("import hf_swin", "transformers", role.auto, name, "", role, processed)
        yield "Without it; the code travels with the weights:"
        yield _code(None, "transformers", role.auto, name, ", trust_remote_code=True", role, processed)
        yield (
            "With the classes of transformers and no code from elsewhere: `hf-swin publish FOLDER --repo USER/NAME "
            "--format transformers` makes a stock repository of these weights, if stock classes can hold them."
        )
    else:
        yield "With transformers alone:"
        yield _code(None, "transformers", role.auto, name, "", role, processed)
        if ours:
            yield "With the package, for images of any size:"
            yield _code(None, "hf_swin", ours, name, "", role, processed)
    if role.task == "image-classification" and processed:
        yield f'`transformers.pipeline("image-classification", model="{name}")` takes the same imports and flags.'


def _code(first: str | None, source: str, cls: str, name: str, flag: str, role: Role, processed: bool) -> str:
    """The few lines that open the model one way; `image` is a picture of PIL, or its pixels for want of a processor."""
    imports = {"transformers": ["AutoImageProcessor"] if processed else []}
    imports.setdefault(source, []).append(cls)
    lines = [first] if first else []
    lines += [f"from {module} import {', '.join(names)}" for module, names in sorted(imports.items()) if names]
    lines.append("")
    if processed:
        lines.append(f'processor = AutoImageProcessor.from_pretrained("{name}")')
    lines.append(f'model = {cls}.from_pretrained("{name}"{flag})')
    given = '**processor(image, return_tensors="pt")' if processed else "pixel_values"
    lines.append(f"{role.answer} = model({given}).{role.answer}")
    return "\n".join(["```python", *lines, "```"])


def _data(folder: Path, run: dict[str, Any], conversion: dict[str, Any]) -> Iterator[str]:
    yield "## Data"
    if run:
        images, labels = run["images"], run["labels"]
        names = ", ".join(f"`{label}`" for label in labels[:SHOWN_KEYS])
        more = f" and {len(labels) - SHOWN_KEYS} more, all in `config.json`" if len(labels) > SHOWN_KEYS else ""
        several = ", of which an image may have several" if run["multi_label"] else ""
        yield f"{counts_of(images['images'])} in {len(labels)} classes{several}: {names}{more}."
        if images["skipped"]:
            yield f"Files left out because they are not images: {len(images['skipped'])}."
        if images["leaks"]:
            yield f"Pictures found in more than one split: {len(images['leaks'])}. The scores below count them."
    elif conversion:
        yield f"That of the source, `{conversion['source']}`."
    else:
        yield "The folder does not say what the model was trained on."
    processor = read_json(folder / "preprocessor_config.json")
    if processor:
        height, width = _pixels(processor)
        yield (
            f"Images are turned to RGB, resized to {height} x {width} pixels and normalised as "
            "`preprocessor_config.json` says."
        )


def _pixels(processor: dict[str, Any]) -> tuple[int, int]:
    size = processor["crop_size"] if processor.get("do_center_crop") else processor.get("size", 224)
    if isinstance(size, int):
        return size, size
    side = size.get("shortest_edge")
    return (side, side) if side else (size["height"], size["width"])


def _metrics(folder: Path, run: dict[str, Any], results: list[EvalResult]) -> Iterator[str]:
    yield "## Metrics"
    if not results:
        yield "None were noted."
        return
    rows = [
        f"| {result.metric_name} | {result.dataset_name}, {result.dataset_split} | {result.metric_value:.4f} |"
        for result in results
    ]
    yield "\n".join(["| | on | |", "| --- | --- | --- |", *rows])
    for picture, title in PICTURES.items():
        if (folder / picture).exists():
            yield f"![{title}]({picture})"
    if (folder / REPORT).exists():
        yield f"Every class, the mistakes and the recipe: [{REPORT}]({REPORT})."
    if run:
        yield _training(run)
        rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in run["recipe"].items()]
        yield "\n".join(["| recipe | |", "| --- | --- |", *rows])
        if run["notes"]:
            yield "\n".join(["Notes:", "", *(f"- {note}" for note in run["notes"])])


def _training(run: dict[str, Any]) -> str:
    loss = run["scores"].get("loss")
    parts = [f"Trained {SPEEDS[run['speed']]}. Seed {run['seed']}, {run['seconds']} s."]
    if loss is not None:
        parts.append(f"The loss on the test images is {loss:.4f}.")
    if run["speed"] != "probe":
        parts.append(
            "AdamW, linear warm-up, cosine decay; no weight decay on biases, norms, tokens and position tables."
        )
    return " ".join(parts)


def _origin(license: str | None, base: str | None) -> Iterator[str]:
    yield "## Licence and origin"
    said = f"`{license}`" if license else "not stated in the folder this came from"
    yield f"Licence of the weights: {said}. Base model: {f'`{base}`' if base else 'none'}."


def _report(conversion: dict[str, Any]) -> Iterator[str]:
    if not conversion:
        return
    yield "## Conversion report"
    checkpoint = f", checkpoint `{conversion['checkpoint']}`" if conversion.get("checkpoint") else ""
    yield (
        f"Source `{conversion['source']}`, format `{conversion['format']}`{checkpoint}: {conversion['tensors']} "
        f"tensors, {conversion['parameters']:,} parameters, each key of the source used once."
    )
    rules = conversion.get("rules", {})
    rows = [f"| `{rule.replace('|', chr(92) + '|')}` | {count} |" for rule, count in rules.items()]
    if rows:
        yield "\n".join(["| rule | tensors |", "| --- | --- |", *rows])
    dropped = conversion.get("dropped", [])
    if dropped:
        shown = ", ".join(f"`{key}`" for key in dropped[:SHOWN_KEYS])
        more = f" and {len(dropped) - SHOWN_KEYS} more" if len(dropped) > SHOWN_KEYS else ""
        yield f"Left out: {shown}{more}."
    for title, key in (("Resized", "resized"), ("Left to the user", "left_to_user")):
        if conversion.get(key):
            yield "\n".join([f"{title}:", "", *(f"- {sentence}" for sentence in conversion[key])])


def _evidence(folder: Path, name: str) -> Iterator[str]:
    if (folder / "evidence.safetensors").exists():
        yield "## Evidence"
        yield (
            "`evidence.safetensors` holds an input and the answer expected to it; "
            f"`hf-swin verify --evidence {name}` checks a download against it."
        )
