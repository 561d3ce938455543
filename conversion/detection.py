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
"""Which format a file is of, by its keys, their shapes and the container they lie in."""

from hf_swin.errors import UserError

from . import formats
from .checkpoints import Checkpoint
from .files import Weights


# What may stand before the keys of a model: other parts of such a file are left out.
PARTS = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "module.backbone.")


def detect(weights: Weights, from_format: str | None, known: Checkpoint | None) -> tuple[Weights, str]:
    """Returns the part of a file that is a model, and its format; raises `UserError` for none and for several.

    `from_format` is the user's word; a published checkpoint that the file may be only decides between equals.
    """
    if from_format and from_format not in formats.NAMES:
        raise UserError(f"there is no format {from_format!r}: choose one of {', '.join(formats.NAMES)}.")
    candidates = [weights, *(weights.part(prefix) for prefix in PARTS)]
    for part in candidates:
        fits = formats.fitting(part.tensors, part.container)
        wanted = from_format or (known.format if known else None)
        if wanted and part.tensors and _bears(part, wanted):
            return part, wanted
        if len(fits) == 1 and not from_format:
            return part, fits[0]
        if fits and not from_format:
            raise UserError(
                f"{weights.path} could be {' or '.join(fits)}, whose files are alike: say which with --from."
            )
    alike = [name for part in candidates for name in formats.NAMES if part.tensors and _bears(part, name)]
    if alike and not from_format:
        raise UserError(f"{weights.path} could be {' or '.join(alike)}: say which with --from.")
    reason = f"is not {from_format}" if from_format else "is of no format that this package knows"
    keys = ", ".join(list(weights.tensors)[:6])
    raise UserError(f"{weights.path} {reason}; its {len(weights.tensors)} keys begin with {keys}.")


def _bears(part: Weights, name: str) -> bool:
    """Whether keys and shapes are those of a format; a wish for a format is not held up by the container."""
    signature = formats.named(name).SIGNATURE
    return signature.fits(part.tensors, part.container if signature.container is None else signature.container)
