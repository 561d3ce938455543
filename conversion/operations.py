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
"""What happens to a tensor on its way, each with its inverse: every round trip is exact to the bit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Operation:
    """A function of one or several tensors and the function that undoes it."""

    name: str
    forward: Callable[..., Tensors]
    backward: Callable[..., Tensors]

    def __call__(self, *tensors: torch.Tensor) -> Tensors:
        return self.forward(*tensors)

    def inverse(self) -> "Operation":
        """Returns the operation that undoes this one."""
        return Operation(self.name, self.backward, self.forward)


def _same(*tensors: torch.Tensor) -> Tensors:
    return tensors


RENAME = Operation("renamed", _same, _same)


def split(parts: int) -> Operation:
    """Cuts rows into equal parts: a fused qkv into its three projections."""
    return Operation(f"split in {parts}", lambda x: x.chunk(parts), lambda *parts: (torch.cat(parts),))


# torchvision's Swin v2 stores a bias for the keys and zeroes it in forward; nobody else has one.
SPLIT_WITHOUT_KEY = Operation(
    "split, key bias left out",
    lambda x: x.chunk(3)[::2],
    lambda query, value: (torch.cat([query, torch.zeros_like(query), value]),),
)


def transpose(*axes: int) -> Operation:
    """Reorders the axes: JAX keeps (in, out) and (height, width, in, out)."""
    back = tuple(axes.index(axis) for axis in range(len(axes)))
    return Operation("transposed", lambda x: (x.permute(axes),), lambda x: (x.permute(back),))


def heads_out(heads: int) -> Operation:
    """JAX's query, key or value kernel (in, heads, channels) to a linear weight (heads·channels, in)."""
    return Operation("heads joined", lambda x: (x.flatten(1).T,), lambda x: (x.T.unflatten(1, (heads, -1)),))


def heads_in(heads: int) -> Operation:
    """JAX's output kernel (heads, channels, out) to a linear weight (out, heads·channels)."""
    return Operation("heads joined", lambda x: (x.flatten(0, 1).T,), lambda x: (x.T.unflatten(0, (heads, -1)),))


def heads_flat(heads: int) -> Operation:
    """JAX's bias (heads, channels) to (heads·channels)."""
    return Operation("heads joined", lambda x: (x.flatten(),), lambda x: (x.unflatten(0, (heads, -1)),))


def reshape(before: tuple[int, ...], after: tuple[int, ...]) -> Operation:
    """Views a tensor under another shape; -1 as in torch."""
    return Operation("reshaped", lambda x: (x.reshape(after),), lambda x: (x.reshape(before),))


def _merged_from_unfolded(x: torch.Tensor) -> Tensors:
    return (x.unflatten(-1, (-1, 4))[..., [0, 2, 1, 3]].transpose(-1, -2).flatten(-2),)


def _unfolded_from_merged(x: torch.Tensor) -> Tensors:
    return (x.unflatten(-1, (4, -1)).transpose(-1, -2)[..., [0, 2, 1, 3]].flatten(-2),)


# OpenMMLab merges with nn.Unfold: features are (channel, row, column). All others concatenate neighbours column by
# column: (column, row, channel). The last axis of `reduction`, and of the norm before it, is reordered.
UNFOLDED = Operation("merging reordered", _merged_from_unfolded, _unfolded_from_merged)

# DeiT-III, big_vision and timm's registers: the class token has no position, or carries it within itself.
CLASS_WITHOUT_POSITION = Operation(
    "class token given a zero position",
    lambda token, table: (token, torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)),
    lambda token, table: (token + table[:, :1], table[:, 1:]),
)
