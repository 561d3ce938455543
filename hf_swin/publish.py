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
"""Publishing: from a folder that holds a model to one that others can open, and from there to the Hub."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from huggingface_hub import constants
from transformers import AutoImageProcessor

import hf_swin

from .card import TYPES, model_card, role_of
from .errors import UserError
from .evidence import check_evidence, open_model, read_config, write_evidence
from .hub import check_name, push, stale
from .record import PICTURES, REPORT
from .registration import FAMILIES
from .rundir import disk_errors, finish_move, saved_whole


# Facts that a run or a conversion left; they travel as they are.
COPIED = ("metrics.json", "conversion.json", "LICENSE", REPORT, *PICTURES)
# Largest difference, relative to the answers, between a folder and what is published of it.
TOLERANCE = 1e-4


def publish(
    folder: Path,
    repo: str | None,
    *,
    stock: bool = False,
    private: bool = False,
    license: str | None = None,
    out: Path | None = None,
) -> list[str]:
    """Prepare `folder`, in `out` if given, and push it to `repo` if given; return what to tell the user, by lines.

    Nothing is sent before all of it is prepared and answers like the original. Raises `UserError` for what the user
    can mend; doing the same again finishes what the network broke off.
    """
    with ExitStack() as stack:
        if repo is not None:
            check_name(repo)
            if constants.is_offline_mode():
                raise UserError(
                    "HF_HUB_OFFLINE is set, so nothing can be pushed: unset it and run the same command again."
                )
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hf-swin-")))
        prepare(folder, out, repo or out.name, stock=stock, license=license)
        where = push(out, repo, private) if repo is not None else str(out)
        return [where, *ways_to_open(out, repo or str(out))]


def prepare(folder: Path, out: Path, name: str, *, stock: bool = False, license: str | None = None) -> Path:
    """Write to `out` all that a repository needs: weights, config, code, processor, card, evidence and pictures.

    `stock` asks for the classes of transformers, without code. `name` is what the card calls it. `out` is replaced as
    a whole, or stays as it was. Raises `UserError` for a folder that holds no model, or none of that kind.
    """
    if out.resolve() == folder.resolve():
        raise UserError(f"--out {out} is the folder itself: choose another one.")
    if out.is_dir() and any(out.glob("[!.]*")) and not (out / "evidence.safetensors").exists():
        raise UserError(f"--out {out} holds other files: choose an empty folder, or one that was prepared before.")
    cls = _our_class(folder)
    original = open_model(folder, cls)
    with disk_errors(out):
        finish_move(out)
        with saved_whole(out) as fresh:
            if stock:
                from .conversion.writing import export

                export(folder, fresh, to="transformers")
            else:
                cls.from_pretrained(folder).save_pretrained(fresh, max_shard_size=_shard_size(folder))
            _copy_facts(folder, fresh)
            write_evidence(original, fresh)
            error = check_evidence(fresh)
            if not error <= TOLERANCE:
                raise UserError(f"what was made of {folder} answers differently, by {error:.1e}: it is not published.")
            model_card(fresh, name, license).save(fresh / "README.md")
            new = [path.name for path in fresh.iterdir()]
        for old in stale([path.name for path in out.iterdir()], new):
            (out / old).unlink()
    return out


def ways_to_open(folder: Path, name: str) -> list[str]:
    """Return a line for each way to open what `folder` holds under `name`."""
    config = read_config(folder)
    role = role_of(config)
    check = f"  to check a download:  hf-swin verify --evidence {name}"
    if config["model_type"] not in FAMILIES:
        ours = FAMILIES[TYPES[config["model_type"]][1]][role.auto]
        return [
            f'  with transformers:    {role.auto}.from_pretrained("{name}")',
            f'  with hf_swin:         {ours}.from_pretrained("{name}")',
            check,
        ]
    return [
        f'  with hf_swin:         import hf_swin; {role.auto}.from_pretrained("{name}")',
        f'  without it:           {role.auto}.from_pretrained("{name}", trust_remote_code=True)',
        "  in stock classes:     publish again with --format transformers, to another repository",
        check,
    ]


def _our_class(folder: Path) -> type[hf_swin.HfSwinModel]:
    """The class of this package that opens a folder, its own or a stock one."""
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in TYPES:
        raise UserError(f"{folder} holds a {kind!r} model: what can be published is {', '.join(TYPES)}.")
    return getattr(hf_swin, FAMILIES[TYPES[kind][1]][role_of(config).auto])


def _shard_size(folder: Path) -> int | str:
    """The size of the largest shard, so that what came in parts stays in parts."""
    shards = [path.stat().st_size for path in folder.glob("model-*-of-*.safetensors")]
    return max(shards) if shards and (folder / "model.safetensors.index.json").exists() else "50GB"


def _copy_facts(folder: Path, fresh: Path) -> None:
    if (folder / "preprocessor_config.json").exists():
        AutoImageProcessor.from_pretrained(folder, trust_remote_code=False).save_pretrained(
            fresh
        )  # names its class, as old files do not
    for name in COPIED:
        if (folder / name).exists() and not (fresh / name).exists():
            shutil.copyfile(folder / name, fresh / name)
