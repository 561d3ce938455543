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
"""`hf-swin publish`: from a folder to a repository that opens with this package, without it, or in stock classes."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from hf_swin.errors import UserError, errors_in_one_sentence


class Format(enum.StrEnum):
    """Whose classes the published repository is made for."""

    hf_swin = "hf_swin"
    transformers = "transformers"


def publish(
    folder: Annotated[Path, typer.Argument(help="A saved model: what a run, a conversion or save_pretrained left.")],
    repo: Annotated[str | None, typer.Option(help="Where to push it: user/name.")] = None,
    format: Annotated[
        Format, typer.Option(help="hf_swin: the code travels along; transformers: stock classes, no code.")
    ] = Format.hf_swin,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    license: Annotated[str | None, typer.Option(help="Identifier for the card, such as apache-2.0.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the prepared folder here; without --repo, only that.")] = None,
) -> None:
    """Prepare a folder with code, card and evidence, and push it to the Hub."""
    with errors_in_one_sentence("the same command begins again and sends only what is missing."):
        from hf_swin.publish import publish as run

        if repo is None and out is None:
            raise UserError("say where to: --repo user/name to push, --out FOLDER to prepare only.")
        for line in run(folder, repo, stock=format is Format.transformers, private=private, license=license, out=out):
            print(line)


if __name__ == "__main__":
    typer.run(publish)
