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
"""`hf-swin verify`: two models on the same pixels, part by part."""

from pathlib import Path
from typing import Annotated

import typer

from hf_swin.errors import UserError, errors_in_one_sentence


def verify(
    first: Annotated[str, typer.Argument(help="A model: a file, a folder, or a Hub id.")],
    second: Annotated[str | None, typer.Argument(help="What to compare with; its publisher's class runs it.")] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Compare with the evidence that the folder or repository holds.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Largest difference relative to the largest value.", min=0)] = 1e-5,
    image: Annotated[Path | None, typer.Option(help="The photograph; one of scikit-learn if not given.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name in the catalogue of what the files hold.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Format of the second, where two are alike.")] = None,
    hint: Annotated[
        list[str] | None, typer.Option(help="A number the second's weights do not tell: NAME=VALUE.")
    ] = None,
) -> None:
    """Run two models on the same pixels and print the largest difference of every part; exit with 1 past tolerance."""
    with errors_in_one_sentence("nothing was changed."):
        if evidence:
            from hf_swin.evidence import check_evidence

            error = check_evidence(first)
            print(f"{first}: answers as its evidence says, to {error:.1e} (tolerance {tolerance:.0e})")
            passed = error <= tolerance
        elif second is None:
            raise UserError("say what to compare with: hf-swin verify A B, or hf-swin verify --evidence FOLDER.")
        else:
            from .comparison import runner, verify_two
            from .reading import parse_hint

            one = runner(first, checkpoint=checkpoint)
            hints = dict(map(parse_hint, hint or []))
            other = runner(second, checkpoint=checkpoint, from_format=from_, hints=hints)
            print(f"{first}: {one.name}\n{second}: {other.name}")
            passed = verify_two(one, other, tolerance, image)
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    typer.run(verify)
