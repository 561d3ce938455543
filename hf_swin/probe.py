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

"""A linear head on a frozen backbone, cut where its features are best: an ordinary model, in seconds."""

import copy
import time
from typing import Any

import torch
from datasets import Dataset
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from .configuration_shared import pair
from .data import ImageData
from .features import cache_folder, features, pooling_of
from .parameters import blocks_of
from .processes import this_process
from .trainer import class_weights
from .transforms import output_size


# Images that choose the depth; more of them only cost time and memory.
CHOOSING = 2_000
# Small images are enlarged this many times: enough patches to see, few enough to be fast.
ENLARGED = 3
# Weights of the squared norm in a ridge regression, per image, from strong to weak.
RIDGES = (1.0, 0.3, 0.1, 0.03, 0.01)
ITERATIONS = 100


def probe(
    model: PreTrainedModel, processor: Any, images: ImageData, balanced: bool = False, image_size: int | None = None
) -> tuple[PreTrainedModel, Any, list[str]]:
    """Return an ordinary classifier made of the first blocks or stages of `model` and a head fitted to their features,
    its image processor, and what there is to note.

    Only the training images are looked at. `balanced` weighs every class alike. Images that are small for the model are
    enlarged to a size that suits both, unless `image_size` (pixels) was asked for and is in the processor already.
    """
    processor = processor if image_size else sized(processor, images, model.config)
    started = time.monotonic()
    chosen, count = _sample(images), len(blocks_of(model))
    levels, cached = features(model.float(), processor, chosen, range(1, count + 1))
    scores = depth_scores(levels, targets_of(chosen, images), images.multi_label, balanced)
    depth = max(scores, key=scores.__getitem__)
    model, x_NC = cut(model, depth), levels[depth]
    if len(chosen) < len(images.train):
        levels, cached = features(model, processor, images.train, [depth])
        x_NC = levels[depth]
    seconds = time.monotonic() - started
    started = time.monotonic()
    ridge = fit_head(model.classifier, x_NC, images, balanced)
    (height, width), part = output_size(processor), "stage" if hasattr(model.config, "depths") else "block"
    source = f"read from {cache_folder()}" if cached else f"computed and compared in {seconds:.1f} s"
    notes = [
        f"features of {len(images.train)} images at {width}x{height} pixels: {source}",
        f"the backbone ends after {part} {depth} of {count}: {_score_name(images, balanced)} {scores[depth]:.2%} "
        f"there on {len(chosen)} training images, each left out in turn",
        f"head on {pooling_of(model.config).replace('_', ' ')}, ridge {ridge:g}: "
        f"fitted in {time.monotonic() - started:.1f} s",
    ]
    if this_process().is_main_process:
        print(f"{part:>5}   left-out score", *(f"{d:5}   {scores[d]:14.2%}" for d in scores), *notes, sep="\n")
    return model, processor, notes


def _score_name(images: ImageData, balanced: bool) -> str:
    if images.multi_label:
        return "mean precision"
    return "mean recall" if balanced else "accuracy"


def sized(processor: Any, images: ImageData, config: PreTrainedConfig) -> Any:
    """Return a processor that enlarges images smaller than those of the model to whole patches, without a crop."""
    unit = max(getattr(config, "total_stride", None) or pair(config.patch_size))
    side = max(ENLARGED * images.image_size // unit, 1) * unit
    if side >= min(output_size(processor)):
        return processor
    processor = copy.deepcopy(processor)
    processor.size, processor.do_center_crop = {"height": side, "width": side}, False
    return processor


def targets_of(split: Dataset, images: ImageData) -> torch.Tensor:
    """Return zeros and ones (N, labels) of a split."""
    rows = [label if images.multi_label else [label] for label in split["label"]]
    targets = torch.zeros(len(rows), len(images.labels))
    for target, labels in zip(targets, rows, strict=True):
        target[labels] = 1
    return targets


def _sample(images: ImageData) -> Dataset:
    train = images.train
    if len(train) <= CHOOSING:
        return train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return train.select(sorted(order[:CHOOSING].tolist()))


def depth_scores(
    levels: dict[int, torch.Tensor], targets_NK: torch.Tensor, multi_label: bool, balanced: bool = False
) -> dict[int, float]:
    """Return for each depth how well a ridge regression tells each image from all others: the accuracy (the mean recall
    if `balanced`), for several labels an image the mean precision over all; the best of `RIDGES`."""
    scores = {}
    for depth, x_NC in levels.items():
        guesses = leave_one_out(_standard(x_NC)[0], targets_NK, RIDGES)
        scores[depth] = max(_score(guess_NK, targets_NK, multi_label, balanced) for guess_NK in guesses)
    return scores


def _score(guess_NK: torch.Tensor, targets_NK: torch.Tensor, multi_label: bool, balanced: bool) -> float:
    if multi_label:
        return float(average_precision_score(targets_NK, guess_NK, average="micro"))
    truth, guess = targets_NK.argmax(1), guess_NK.argmax(1)
    return float(balanced_accuracy_score(truth, guess)) if balanced else (truth == guess).float().mean().item()


def leave_one_out(x_NC: torch.Tensor, targets_NK: torch.Tensor, ridges: tuple[float, ...]) -> list[torch.Tensor]:
    """Return for each ridge what a regression with it, fitted to all other rows, says of each row: (N, K).

    In closed form from one decomposition: Hastie, Tibshirani, Friedman, The Elements of Statistical Learning (2009),
    eq. 7.64. `x_NC` has columns of mean zero; a ridge counts per row.
    """
    count, middle = len(x_NC), targets_NK.mean(0)
    squares, axes = torch.linalg.eigh(x_NC.T @ x_NC)
    x_NC, y_NK = x_NC @ axes, targets_NK - middle
    answers = []
    for ridge in ridges:
        scaled_NC = x_NC / (squares.clamp(min=0) + ridge * count)
        own_N = (scaled_NC * x_NC).sum(1) + 1 / count  # how much of its own target a row gets back
        error_NK = (y_NK - scaled_NC @ (x_NC.T @ y_NK)) / (1 - own_N).clamp(min=1e-4)[:, None]
        answers.append(targets_NK - error_NK)
    return answers


def _standard(x_NC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of mean zero and deviation one, with the mean and the deviation; what never varies is left at zero."""
    mean, deviation = x_NC.mean(0), x_NC.std(0, correction=0)
    deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf)
    return (x_NC - mean) / deviation, mean, deviation


def cut(model: PreTrainedModel, depth: int) -> PreTrainedModel:
    """Return a classifier of the first `depth` blocks or stages; its last norm and its head start afresh.

    What the scale and shift of a norm would do, the head does.
    """
    derived = ("out_features", "out_indices", "stage_names", "encoder_stride")
    fields = {name: value for name, value in model.config.to_dict().items() if name not in derived}
    if "depths" in fields:
        for name in ("depths", "num_heads", "window_size", "pretrained_window_sizes"):
            if isinstance(fields.get(name), list | tuple):
                fields[name] = fields[name][:depth]
    else:
        head = {"norm_after_pooling": False, "pooler": "none", "use_distillation_head": False}
        fields |= {"num_hidden_layers": depth, "pooling": pooling_of(model.config), **head}
    short = type(model)(type(model.config).from_dict(fields))
    fresh = (f"{model.base_model_prefix}.layernorm.", "classifier.")
    wanted = {name for name in short.state_dict() if not name.startswith(fresh)}
    short.load_state_dict({name: model.state_dict()[name] for name in wanted}, strict=False)
    short.name_or_path = short.config.name_or_path = model.name_or_path
    return short.eval()


def fit_head(head: torch.nn.Linear, x_NC: torch.Tensor, images: ImageData, balanced: bool = False) -> float:
    """Fit a linear layer to features of the training images by ridge regression, standardised within it, and return
    its ridge, the one that does best on images left out; what it says of those also makes its probabilities."""
    targets_NK = targets_of(images.train, images)
    z_NC, mean, deviation = _standard(x_NC)
    guesses = leave_one_out(z_NC, targets_NK, RIDGES)
    scores = [_score(guess_NK, targets_NK, images.multi_label, balanced) for guess_NK in guesses]
    best = scores.index(max(scores))
    scale, shift_K = _calibration(guesses[best], targets_NK, images, balanced)
    middle = targets_NK.mean(0)
    squares_CC = z_NC.T @ z_NC + RIDGES[best] * len(z_NC) * torch.eye(z_NC.shape[1])
    weights_CK = torch.linalg.solve(squares_CC, z_NC.T @ (targets_NK - middle))
    with torch.no_grad():
        head.weight.copy_(scale * weights_CK.T / deviation)
        head.bias.copy_(scale * middle + shift_K - head.weight @ mean)
    return RIDGES[best]


def _calibration(
    guess_NK: torch.Tensor, targets_NK: torch.Tensor, images: ImageData, balanced: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and the shift of each class that turn a regression's answers into logits with the least loss.

    Platt, Probabilistic Outputs for Support Vector Machines (1999), whose targets just short of 0 and 1 keep the scale
    finite where no image is mistaken.
    """
    labels = images.train["label"][:]
    weights = class_weights(labels, len(images.labels), images.multi_label) if balanced else None
    chance = 0.5 if images.multi_label else 1 / len(images.labels)
    soft_NK = targets_NK + (chance - targets_NK) / len(targets_NK)
    found = torch.cat([torch.ones(1), torch.zeros(len(images.labels))]).requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits_NK = found[0] * guess_NK + found[1:]
        if images.multi_label:
            value = F.binary_cross_entropy_with_logits(logits_NK, soft_NK, pos_weight=weights)
        else:
            value = F.cross_entropy(logits_NK, soft_NK, weight=weights)
        value.backward()
        return value

    optimizer.step(closure)
    return found.detach()[0], found.detach()[1:]
