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
"""What `hf-swin bench` compares: a table of variants, each built from the weights of the same model of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig

import hf_swin

from .conversion import formats
from .conversion.peers import PEERS
from .conversion.targets import moved
from .conversion.writing import export
from .presets import MODELS


MODES = ("inference", "training")
DTYPES = ("float32", "bfloat16")
# How far weights are moved from where they begin, matrices and vectors: norms of Swin v2 begin at zero, and biases
# and tables, which would hide a mistake in the order of anything.
SPREAD = {True: 0.02, False: 0.1}
# Too small to change what is timed, too large to be skipped.
LEARNING_RATE = 1e-6
LABELS = 1000

Forward = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Case:
    """One piece of work that all variants do: images of (batch, 3, size, size) through a model, in a mode and dtype."""

    model: str
    mode: str
    dtype: str
    batch: int
    size: int

    def __str__(self) -> str:
        return f"{self.model}, {self.mode}, {self.dtype}, batch {self.batch}, {self.size} px"

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def trains(self) -> bool:
        return self.mode == "training"

    def images(self, device: torch.device) -> torch.Tensor:
        """Return the same random pixels for every variant: float32, (batch, 3, size, size)."""
        generator = torch.Generator().manual_seed(self.size)
        return torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(device)

    def labels(self, device: torch.device) -> torch.Tensor:
        """Return a class number for each image, (batch,)."""
        return torch.arange(self.batch, device=device)


class NotAvailable(Exception):
    """A variant cannot do a case, and the message says why."""


def native_size(model: str) -> int:
    """Return the side in pixels of the images that a model was published for."""
    return MODELS[model]().image_size


def config_of(model: str, size: int) -> PreTrainedConfig:
    """Return the config of a model for images of `size` pixels, without anything random in training."""
    return MODELS[model](image_size=size, num_labels=LABELS, drop_path_rate=0.0)


def class_of(config: PreTrainedConfig) -> type[nn.Module]:
    """Return the classifier of this package for a config."""
    return getattr(hf_swin, config.class_prefix + "ForImageClassification")


def write_weights(model: str, size: int, folder: Path) -> None:
    """Write random, seeded weights, none of them at its initial value, as `ours` and in transformers' own layout."""
    torch.manual_seed(0)
    config = config_of(model, size)
    ours = class_of(config)(config)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(SPREAD[parameter.ndim > 1] * torch.randn_like(parameter))
    ours.save_pretrained(folder / "ours")
    (folder / "stock").mkdir()
    export(folder / "ours", folder / "stock", "transformers")


def _ours(folder: Path, case: Case) -> nn.Module:
    return AutoModelForImageClassification.from_pretrained(folder / "ours", dtype=torch.float32)


def _optimized(folder: Path, case: Case, compiled: bool = False) -> nn.Module:
    model = _ours(folder, case)
    if case.trains:
        return hf_swin.optimize(model, training=True)
    return hf_swin.optimize(model, dtype=case.torch_dtype, compile=compiled)


def _transformers(folder: Path, case: Case, attention: str | None = None) -> nn.Module:
    """The stock class, with a kernel for attention, or its own choice of one."""
    try:
        return AutoModelForImageClassification.from_pretrained(
            folder / "stock", dtype=torch.float32, attn_implementation=attention
        )
    except ValueError as error:
        raise NotAvailable(f"transformers has no {attention} attention for this model") from error


def _peer(folder: Path, case: Case, library: str) -> nn.Module:
    """The publisher's own class, with weights through this package's tables."""
    if find_spec(library) is None:
        raise NotAvailable(f"{library} is not installed (pip install 'hf_swin[bench]')")
    config = AutoConfig.from_pretrained(folder / "ours")
    name = f"{library}_{config.model_type.removeprefix('hf_')}"
    try:
        tensors, _ = moved(formats.named(name), config, load_file(folder / "ours" / "model.safetensors"))
    except ValueError as error:
        raise NotAvailable(f"{library} cannot hold this model: {error}") from error
    model = PEERS[name].build(config)
    model.load_state_dict(tensors)
    for module in model.modules():  # timm and torchvision leave out blocks unless told otherwise
        for rate in ("drop_prob", "p"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return model


def _timm(folder: Path, case: Case) -> nn.Module:
    model = _peer(folder, case, "timm")
    from timm.layers import use_fused_attn

    if not use_fused_attn():
        raise NotAvailable("fused attention of timm is off (TIMM_FUSED_ATTN=0)")
    return model


def _onnxruntime(folder: Path, case: Case, device: torch.device) -> Forward:
    if find_spec("onnxruntime") is None or find_spec("onnxscript") is None:
        raise NotAvailable("onnxruntime or onnxscript is not installed (pip install 'hf_swin[bench]')")
    import onnxruntime

    if case.dtype != "float32":
        raise NotAvailable(f"ONNX Runtime has no {case.dtype} kernels for these models")
    provider = "CPUExecutionProvider" if device.type == "cpu" else f"{device.type.upper()}ExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise NotAvailable(f"this build of ONNX Runtime has no {provider}")
    path = folder / f"timm-{case.batch}.onnx"
    if not path.exists():
        model, pixels = _timm(folder, case).eval(), case.images(torch.device("cpu"))
        torch.onnx.export(model, (pixels,), path, input_names=["pixels"], dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on spinning after a call, at the cost of whoever has the next turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy(force=True)})[0])


def _openvino(folder: Path, case: Case, device: torch.device) -> Forward:
    if device.type != "cpu":
        raise NotAvailable("OpenVINO is measured on CPUs only")
    if find_spec("openvino") is None:
        raise NotAvailable("openvino is not installed (pip install 'hf_swin[bench]')")
    import openvino

    path = folder / f"timm-{case.batch}.xml"
    if not path.exists():
        model, pixels = _timm(folder, case).eval(), case.images(device)
        with torch.no_grad():
            graph = openvino.convert_model(model, example_input=pixels, input=[list(pixels.shape)])
        openvino.save_model(graph, path, compress_to_fp16=False)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[case.dtype],
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda pixels: torch.from_numpy(compiled(pixels.numpy())[0])


@dataclass(frozen=True)
class Variant:
    """A way to run a model: `build(folder, case)` gives a module, or `build(folder, case, device)` an engine's call.

    `ready` says that what is built is in its dtype, and compiled if it shall be.
    """

    build: Callable[..., Any]
    compiled: bool = False
    ready: bool = False
    engine: bool = False

    @property
    def trains(self) -> bool:
        return not (self.engine or (self.ready and self.compiled))


_TORCHVISION = partial(_peer, library="torchvision")
OURS = ("hf_swin optimized", "hf_swin", "hf_swin compiled", "hf_swin optimized compiled")
ENGINES = ("onnxruntime", "openvino")
VARIANTS = {
    "hf_swin": Variant(_ours),
    "hf_swin optimized": Variant(_optimized, ready=True),
    "transformers sdpa": Variant(partial(_transformers, attention="sdpa")),
    "transformers eager": Variant(partial(_transformers, attention="eager")),
    "timm": Variant(_timm),
    "torchvision": Variant(_TORCHVISION),
    "onnxruntime": Variant(_onnxruntime, engine=True),
    "openvino": Variant(_openvino, engine=True),
    "hf_swin compiled": Variant(_ours, compiled=True),
    "hf_swin optimized compiled": Variant(partial(_optimized, compiled=True), compiled=True, ready=True),
    "transformers compiled": Variant(_transformers, compiled=True),
    "timm compiled": Variant(_timm, compiled=True),
    "torchvision compiled": Variant(_TORCHVISION, compiled=True),
}


@dataclass(frozen=True)
class Work:
    """A variant at work: `run` does it once, `answer` gives what the last run left, to be compared."""

    run: Callable[[], torch.Tensor]
    answer: Callable[[torch.Tensor], dict[str, torch.Tensor]]


def build(name: str, folder: Path, case: Case, device: torch.device) -> Work:
    """Return a variant ready to do a case; raises `NotAvailable` where it cannot."""
    variant = VARIANTS[name]
    if case.trains and not variant.trains:
        raise NotAvailable("made for inference only")
    if variant.engine:
        return _inference(variant.build(folder, case, device), case.images(device))
    model = variant.build(folder, case).to(device).train(case.trains)
    if not (case.trains or variant.ready):
        model = model.to(case.torch_dtype)
    forward = torch.compile(model) if variant.compiled and not variant.ready else model
    if case.trains:
        return _training(model, forward, case, device)
    return _inference(forward, case.images(device).to(case.torch_dtype))


def _logits(output: Any) -> torch.Tensor:
    return getattr(output, "logits", output)


def _inference(forward: Forward, pixels: torch.Tensor) -> Work:
    @torch.inference_mode()
    def run() -> torch.Tensor:
        return _logits(forward(pixels))

    return Work(run, lambda logits: {"logits": logits})


def _training(model: nn.Module, forward: Forward, case: Case, device: torch.device) -> Work:
    """Forward, cross-entropy, backward and AdamW; in bfloat16 by autocast, as people train."""
    pixels, labels = case.images(device), case.labels(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    # The one convolution of all these models: its gradient has come through everything else.
    patches = next(parameter for parameter in model.parameters() if parameter.ndim == 4)

    def run() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=case.dtype == "bfloat16"):
            loss = nn.functional.cross_entropy(_logits(forward(pixels)), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Work(run, lambda loss: {"loss": loss, "gradient of the patches": patches.grad})
