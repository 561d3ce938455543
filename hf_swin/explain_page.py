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
"""`hf-swin explain`: what a model looks at in a picture, as a picture and as a page on which one can ask it."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import UserError, errors_in_one_sentence, one_line


if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from transformers import PreTrainedModel

    from .explain import AttentionMap

PICTURE, PAGE = "explain.png", "explain.html"
# Bytes of weights in a page; a model that has more shows the mean of its heads.
MOST = 16_000_000


def explain(
    model: Annotated[str, typer.Argument(help="A folder or Hub id of a ViT, Swin or Swin v2.")],
    image: Annotated[Path, typer.Argument(help="A picture.")],
    label: Annotated[str | None, typer.Option(help="Whose evidence is shown, a name or number.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels that the model sees.", min=1)] = None,
    out: Annotated[Path, typer.Option(help="Folder for explain.png and explain.html.")] = Path("explain"),
) -> None:
    """Draw what every block of a model attends to in a picture, and where its answer comes from."""
    with errors_in_one_sentence("nothing was written."):
        from .explain import attention_maps, class_map
        from .explain_pictures import explanation
        from .pictures import save_png
        from .rundir import disk_errors, write_text
        from .transforms import prepared

        opened, processor = open_model(model, image_size)
        pixel_values = prepared(processor, [read(image)]).to(opened.dtype)
        maps = attention_maps(opened, pixel_values)
        chosen, answer = answer_of(opened, pixel_values, label)
        evidence = None if chosen is None else class_map(opened, pixel_values, chosen)
        seen = picture_of(processor, pixel_values)
        with disk_errors(out):
            save_png(explanation(seen, maps, evidence, answer), out / PICTURE)
            write_text(out / PAGE, page(image.name, seen, maps, evidence, answer))
        print(f"{answer or 'no classifier, so attention alone'}; {len(maps)} blocks")
        print(f"a picture: {out / PICTURE}\na page to click on: {out / PAGE}")


def read(path: Path) -> "Image.Image":
    """Return a picture in RGB; raises `UserError` for a file that is none."""
    from PIL import Image

    from .transforms import to_rgb

    try:
        with Image.open(path) as opened:
            return to_rgb(opened)
    except Exception as error:  # a broken file makes the decoders of Pillow raise anything
        raise UserError(f"{path} is not readable as a picture: {one_line(error)}") from error


def open_model(source: str, image_size: int | None = None) -> "tuple[PreTrainedModel, Any]":
    """Return a classifier, or a model without one, and its image processor; raises `UserError` for what is no model."""
    from transformers import PreTrainedConfig

    import hf_swin

    from .inference import open_classifier, resize_to
    from .starting import CLASSES, FAMILY_OF, processor_of

    try:
        facts = PreTrainedConfig.get_config_dict(source)[0]
    except (OSError, ValueError):
        facts = {}
    if "model_type" not in facts:
        raise UserError(f"{source} holds no model: give a folder with a config.json or a Hub id.")
    if facts["model_type"] not in FAMILY_OF:
        raise UserError(f"{source} is a {facts['model_type']!r} model: explain takes {', '.join(sorted(FAMILY_OF))}.")
    if any("ImageClassification" in name for name in facts.get("architectures") or []):
        return open_classifier(source, image_size)
    prefix = CLASSES[FAMILY_OF[facts["model_type"]]][0].class_prefix
    try:
        model = getattr(hf_swin, f"{prefix}Model").from_pretrained(source, dtype="auto")
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{source} does not open: {one_line(error)}") from error
    processor = processor_of(source, model.config.image_size)
    if image_size:
        resize_to(processor, image_size)
    return model, processor


def answer_of(model: "PreTrainedModel", pixel_values: "torch.Tensor", label: str | None) -> tuple[int | None, str]:
    """Return the number of a label, by name or number or the likeliest, and what is said of it; None without.

    What is said has probabilities, and the model's own answer too where the label is another.
    """
    import torch

    from .explain import has_classifier
    from .inference import chooses_several

    if not has_classifier(model):
        if label is not None:
            raise UserError(f"--label {label}: the model has no classifier, so there is no answer to explain.")
        return None, ""
    with torch.inference_mode():
        logits = model(pixel_values.to(model.device)).logits[0].float()
    probabilities = logits.sigmoid() if chooses_several(model.config) else logits.softmax(-1)
    likeliest = int(probabilities.argmax())
    chosen = likeliest if label is None else number_of(model.config, label)
    name_of = model.config.id2label
    said = {number: f"{name_of[number]}, {100 * probabilities[number]:.1f} %" for number in (chosen, likeliest)}
    if chosen == likeliest:
        return chosen, f"Answer: {said[chosen]}"
    return chosen, f"Asked for: {said[chosen]}; answer: {said[likeliest]}"


def number_of(config: Any, label: str) -> int:
    """Return the number of a label that is given by name or number; raises `UserError` for one that is not there."""
    names = {name: number for number, name in config.id2label.items()}
    if label in names:
        return names[label]
    if label.isdecimal() and int(label) in config.id2label:
        return int(label)
    some = ", ".join(list(names)[:8])
    raise UserError(f"--label {label}: the model's {len(names)} labels are numbered from 0 and called {some}, …")


def picture_of(processor: Any, pixel_values: "torch.Tensor") -> "Image.Image":
    """Return the picture of (1, 3, H, W) pixels as the model sees it: resized and cropped, normalisation undone."""
    import torch
    from PIL import Image

    pixels_CHW = pixel_values[0].float()
    if processor.do_normalize:
        mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (processor.image_mean, processor.image_std))
        pixels_CHW = pixels_CHW * std + mean
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    levels_HWC = (pixels_CHW / scale).round().clamp(0, 255).byte().permute(1, 2, 0)
    return Image.fromarray(levels_HWC.numpy())


def page(
    name: str,
    picture: "Image.Image",
    maps: "Sequence[AttentionMap]",
    evidence: "np.ndarray | None" = None,
    answer: str = "",
) -> str:
    """Return one self-contained page: a click on a patch shows what it attends to, in each block and head."""
    import jinja2

    from .explain import rollout

    of_heads = sum(attention.weights.size for attention in maps) <= MOST
    views = [] if evidence is None else [_view("class map", evidence, maps[-1])]
    if maps[0].layout is None:
        views.append(_view("rollout", rollout(maps), maps[-1]))
    data = {
        "picture": _exact(picture),
        "size": [picture.height, picture.width],
        "blocks": [_block(attention, of_heads) for attention in maps],
        "views": views,
        "classToken": maps[0].class_token,
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template(PAGE)
    return template.render(name=name, answer=answer, of_heads=of_heads, shifts=maps[0].layout is not None, data=data)


def _view(name: str, heat: "np.ndarray", attention: "AttentionMap") -> dict[str, Any]:
    return {"name": name, "grid": attention.grid, "stride": attention.stride, **_packed(heat.reshape(1, -1))}


def _block(attention: "AttentionMap", of_heads: bool) -> dict[str, Any]:
    weights = attention.weights if of_heads else attention.weights.mean(1, keepdims=True)
    windows, heads, tokens, _ = weights.shape
    layout = attention.layout
    return {
        "name": attention.name,
        "grid": attention.grid,
        "stride": attention.stride,
        "prefix": attention.prefix,
        "windows": windows,
        "heads": heads,
        "side": tokens,
        "tokens": _text(attention.tokens.astype("<i4")),
        "cut": layout and {"window": layout.window, "shift": layout.shift},
        "regions": _regions(attention),
        **_packed(weights),
    }


def _regions(attention: "AttentionMap") -> list[int] | None:
    """The region of each token of the grid (figure 4 of the paper), 0 to 8; None where nothing is shifted."""
    import torch

    from .modeling_windows import WindowLayout, partition, region_ids

    layout = attention.layout
    if layout is None or not any(layout.shift):
        return None
    uncut = WindowLayout(layout.padded, layout.window, (0, 0))
    ids_HW = region_ids(layout, False, torch.device("cpu"))
    ids_NT = partition(ids_HW[None, :, :, None], uncut).squeeze(-1).numpy()
    of_token = dict(zip(attention.tokens.ravel().tolist(), ids_NT.ravel().tolist(), strict=True))
    return [of_token[token] for token in range(attention.grid[0] * attention.grid[1])]


def _packed(weights: "np.ndarray") -> dict[str, str]:
    """Weights as bytes, 255 for the largest of a row, and these largest ones as float32."""
    largest = weights.max(-1, keepdims=True)
    scaled = (weights / (largest + (largest == 0)) * 255).round().astype("u1")
    return {"weights": _text(scaled), "largest": _text(largest.astype("<f4"))}


def _text(numbers: "np.ndarray") -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _exact(picture: "Image.Image") -> str:
    """A picture as text for a page, to the pixel: the tokens must lie where they were."""
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
