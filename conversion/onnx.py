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
"""The weights of a ViT in an exported ONNX graph, under the names that the exporter took from some of them."""

import re
from pathlib import Path

import torch

from hf_swin.errors import UserError


def initialisers(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a graph by name; raises UserError where the package onnx is missing or the file is bad.

    Exporters fold the transpose of a linear layer into its weight, which then has no name; but the bias that is added
    next has one. A position table that was cut for resizing lies there in two: the class token's row and the patches'.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise UserError(f"{path}: reading ONNX needs the package onnx: pip install onnx.") from error
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's own, which is no part of its public names
        raise UserError(f"{path} is damaged or no ONNX file.") from error
    tensors = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    named = {}
    renamed = {**_weights_beside_biases(graph, tensors), **_names_without_onnx(tensors)}
    for key, name in renamed.items():
        named[name] = tensors[key].T if key.startswith("onnx::MatMul") else tensors[key]
    return {**named, **_joined_positions(tensors, named)}


def _names_without_onnx(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    return {key: key for key in tensors if not key.startswith("onnx::")}


def _weights_beside_biases(graph, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """The unnamed matrix of a product is the weight of the layer whose named bias is added to the product."""
    added = {name: [*node.input] for node in graph.node if node.op_type == "Add" for name in node.input}
    names = {}
    for node in graph.node:
        matrix = node.input[1] if node.op_type == "MatMul" else ""
        if matrix.startswith("onnx::MatMul") and matrix in tensors:
            bias = next((name for name in added.get(node.output[0], []) if name in tensors), "")
            if bias.endswith(".bias"):
                names[matrix] = bias.removesuffix("bias") + "weight"
    return names


def _joined_positions(tensors: dict[str, torch.Tensor], named: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    unnamed = [tensor for key, tensor in tensors.items() if key.startswith("onnx::") and tensor.ndim == 3]
    token = next((key for key in named if key.endswith("embeddings.cls_token")), None)
    table = token and token.replace("cls_token", "position_embeddings")
    first = [tensor for tensor in unnamed if tensor.shape[1] == 1]
    patches = [tensor for tensor in unnamed if tensor.shape[1] > 1]
    if not token or table in named or len(first) != 1 or len(patches) != 1:
        return {}
    return {table: torch.cat([first[0], patches[0]], dim=1)}


def image_size(path: Path) -> tuple[int, int] | None:
    """Returns (height, width) of the images that a graph is made for, or None if it takes any."""
    import onnx

    shape = onnx.load(str(path), load_external_data=False).graph.input[0].type.tensor_type.shape.dim
    sides = [dimension.dim_value for dimension in shape[-2:]]
    return (sides[0], sides[1]) if all(sides) else None


def run(path: Path, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns what a graph computes after its embeddings, each of its layers and its last norm, by onnxruntime.

    Raises `UserError` where the packages onnx and onnxruntime are missing.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: running ONNX needs: pip install onnx onnxruntime.") from error
    model = onnx.load(str(path))
    ends = _ends_of_parts(model.graph)
    for name in ends.values():
        if name not in {output.name for output in model.graph.output}:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = session.run([*ends.values()], {session.get_inputs()[0].name: pixels.numpy()})
    return {part: torch.from_numpy(answer) for part, answer in zip(ends, answers, strict=True)}


def _ends_of_parts(graph) -> dict[str, str]:
    """The last value that each part of the exported module computes, by this package's name of the part."""
    ends = {}
    for node in graph.node:
        scope = [step for step in node.name.split("/")[:-1] if step]
        for depth, step in enumerate(scope):
            layer = re.fullmatch(r"(?:layer|layers|blocks)\.(\d+)", step)
            if layer:
                ends[f"layers.{layer[1]}"] = node.output[0]
                break
            if step in ("embeddings", "layernorm") and depth == len(scope) - 1:
                ends[step] = node.output[0]
    return ends
