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
"""Faster inference, and leaner training, with equal answers: `hf_swin.optimize(model)`.

Parameters keep their names, and nothing is added to the model's state: an optimised model is saved as any other.
"""

from functools import partial

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from . import window_kernel
from .errors import UserError
from .faster_swin import FastBias, FastEncoder, Piecewise, fast_stage
from .faster_ways import (
    FastBlock,
    FastLinear,
    FastMLP,
    FastPatches,
    FastProjections,
    FastWay,
    LeanLinear,
    LeanMLP,
    plain,
)
from .modeling_attention import CosineWindowAttention, SelfAttention, WindowAttention
from .modeling_blocks import MLP, Block, PreNormBlock, SwinBlock, SwinV2Block
from .modeling_stages import PatchMerging
from .modeling_swin import HfSwinPreTrainedModel


def optimize(
    model: PreTrainedModel,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    int8: bool = False,
    training: bool = False,
) -> PreTrainedModel:
    """Returns the model itself with a faster way to the same answers, in evaluation mode or ready to be trained.

    For inference, that way is taken under `torch.inference_mode()` or `torch.no_grad()`; with gradients all is as
    before. On a CPU the layers take packed weights, and norms and residuals with them; a block of Swin is one kernel,
    for a few images, or rows of windows, at a time. `dtype` is the type the model is moved to first. `compile` leaves
    all but the kernel for windows to torch.compile, for a minute at the first call. `int8` quantises the linear layers
    (torchao, dynamic activations), for answers that are no longer equal, and alone changes the state.

    For training, the kernel for windows has gradients, and what follows the first layer of an MLP is made again in the
    backward pass, which saves a sixth of the memory at eight images. Raises UserError for a model of another package,
    for int8 without torchao and for options that do not go together.
    """
    if not any(isinstance(module, SelfAttention) for module in model.modules()):
        raise UserError(f"{type(model).__name__} is no model of hf_swin: open it by the classes of this package.")
    if training and (compile or int8):
        raise UserError("training goes with neither compile nor int8: leave them out, or call torch.compile yourself.")
    _restore(model)
    model = model.train(training).to(dtype=dtype or model.dtype)
    on_cpu = model.device.type == "cpu"
    if on_cpu and any(isinstance(module, WindowAttention) for module in model.modules()):
        model.set_attn_implementation(window_kernel.NAME)
    if int8:
        _quantize(model)
    if training:
        _keep_less(model)
    elif compile:
        model.compile(options={"freezing": True} if on_cpu else None)
    elif on_cpu:
        if not int8:
            _pack(model)
        _work_in_pieces(model)
    return model


def _restore(model: PreTrainedModel) -> None:
    """Takes away what an earlier call has put in the place of methods."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if isinstance(value, FastWay)]:
            delattr(module, name)


def _work_in_pieces(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, WindowAttention):
            FastBias(module)
        elif isinstance(module, SwinBlock | SwinV2Block):
            Piecewise(module)


def _pack(model: PreTrainedModel) -> None:
    activation = model.config.hidden_act
    attentions = dict.fromkeys((SelfAttention, WindowAttention, CosineWindowAttention), FastProjections)
    ways = {nn.Linear: FastLinear, nn.Conv2d: FastPatches, **attentions}
    ways |= {MLP: partial(FastMLP, activation=activation), PreNormBlock: partial(FastBlock, activation=activation)}
    for module in model.modules():
        if type(module) in ways:
            ways[type(module)](module)
        elif isinstance(module, HfSwinPreTrainedModel) and hasattr(module, "stages"):
            FastEncoder(module, [fast_stage(stage, activation) for stage in module.stages])


def _keep_less(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, Block) and isinstance(module.mlp, MLP):
            LeanMLP(module.mlp, module.mlp_norm)
        elif isinstance(module, PatchMerging):
            LeanLinear(module.reduction, module.norm)


def _quantize(model: PreTrainedModel) -> None:
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise UserError("int8 needs torchao: pip install torchao.") from error
    # The network of Swin v2's bias is small, and the bias of a pair far from zero: it stays as it is.
    quantize_(
        model,
        Int8DynamicActivationInt8WeightConfig(),
        filter_fn=lambda module, name: plain(module) and "continuous_position_bias" not in name,
    )
