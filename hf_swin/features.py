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

"""Features of a frozen backbone after each of its blocks or stages, computed once and kept on disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel

from .inference import WORKERS
from .modeling_heads import pool_tokens
from .parameters import blocks_of
from .transforms import prepared, to_rgb


BATCH = 64
# What a new head changes in a config and no feature depends on.
HEAD_FIELDS = ("_name_or_path", "architectures", "id2label", "label2id", "problem_type", "transformers_version")


def pooling_of(config: PreTrainedConfig) -> str:
    """Return what of a backbone's tokens a head reads: all there is, for it can leave out what does not help."""
    return "class_and_mean" if getattr(config, "use_class_token", False) else "mean"


def features(
    model: PreTrainedModel, processor: Any, split: Dataset, depths: Sequence[int]
) -> tuple[dict[int, torch.Tensor], bool]:
    """Return for each depth (1 is after the first block or stage) the pooled, normalised tokens (N, C) of a split's
    images in float32 on the CPU, and whether they came from the disk.

    They are kept under HF_HOME, in hf_swin/features; weights, config, processor, pixels or their order being others
    gives another file. The split has the columns `image`, `label` and `hash`.
    """
    path = cache_folder() / f"{_key(model, processor, split, depths)}.safetensors"
    try:
        kept = load_file(path)
        return {depth: kept[str(depth)] for depth in depths}, True
    except (OSError, SafetensorError, KeyError):  # not there yet, or cut off by something
        computed = _computed(model, processor, split, depths)
    _keep(computed, path)
    return computed, False


def cache_folder() -> Path:
    """Return where features are kept; the variable HF_HOME moves it."""
    return Path(constants.HF_HOME) / "hf_swin" / "features"


def _key(model: PreTrainedModel, processor: Any, split: Dataset, depths: Sequence[int]) -> str:
    config = {name: value for name, value in model.config.to_dict().items() if name not in HEAD_FIELDS}
    numbers = [config, processor.to_dict(), list(depths), _halves(), split["hash"][:]]
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.base_model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _halves() -> bool:
    """Say whether bfloat16 is several times as fast here; features in it differ in their third digit."""
    if torch.accelerator.is_available():
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def _computed(model: PreTrainedModel, processor: Any, split: Dataset, depths: Sequence[int]) -> dict[int, torch.Tensor]:
    """One pass over a split in the order of its rows; the backbone ends in evaluation mode, on the CPU."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    pictures = split.select_columns("image")
    loader = DataLoader(
        pictures, BATCH, num_workers=0 if device.type == "cpu" else WORKERS, collate_fn=partial(_pixels, processor)
    )
    halves = torch.autocast(device.type, torch.bfloat16) if _halves() else nullcontext()
    parts: dict[int, list[torch.Tensor]] = {depth: [] for depth in depths}

    def listen(depth: int):
        def hook(_module, _arguments, output):
            parts[depth].append(_pooled(output, model.config).cpu())

        return blocks_of(model)[depth - 1].register_forward_hook(hook)

    hooks = [listen(depth) for depth in depths]
    model.eval().to(device)
    try:
        with torch.no_grad(), halves:  # inference_mode() would cast the weights anew for each batch
            for pixels in tqdm(loader, desc="features", unit="batch", disable=None, leave=False):
                model.base_model(pixels.to(device))
    finally:
        model.cpu()
        for hook in hooks:
            hook.remove()
    return {depth: torch.cat(batches) for depth, batches in parts.items()}


def _pixels(processor: Any, rows: list[dict[str, Any]]) -> torch.Tensor:
    return prepared(processor, [to_rgb(row["image"]) for row in rows])


def _pooled(output: Any, config: PreTrainedConfig) -> torch.Tensor:
    """What a block hands on, or a stage before merging, through a norm without scale and shift, pooled: (B, C)."""
    tokens_BTC = output[1].flatten(1, 2) if isinstance(output, tuple) else output
    with torch.autocast(tokens_BTC.device.type, enabled=False):
        tokens_BTC = F.layer_norm(tokens_BTC.float(), tokens_BTC.shape[-1:], eps=config.layer_norm_eps)
        return pool_tokens(tokens_BTC, pooling_of(config), getattr(config, "num_prefix_tokens", 0))


def _keep(computed: dict[int, torch.Tensor], path: Path) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({str(depth): tensor for depth, tensor in computed.items()}, partial)
        partial.replace(path)
        print(f"the features are kept in {path.parent} (HF_HOME moves it)")
    except (OSError, SafetensorError) as error:  # the work is done: only the next run has to do it again
        print(f"the features are not kept, {path.parent} cannot be written ({error}): make room or set HF_HOME")
        with suppress(OSError):
            partial.unlink()
