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
"""The Hub: one commit that leaves nothing stale behind, and what to do when it fails, in a sentence."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id

from .errors import UserError, one_line


# What an earlier push may have left: `model.safetensors` is read before shards, stock folders have no code, and so on.
OURS = re.compile(
    r"model[^/]*\.safetensors(\.index\.json)?|pytorch_model[^/]*\.bin(\.index\.json)?|tf_model\.h5|flax_model\.msgpack"
    r"|(configuration|modeling)_\w+\.py|(preprocessor_config|metrics|conversion)\.json"
    r"|(training_curve|confusion_matrix|predictions)\.png"
)
AGAIN = "run the same command again: it goes on where this one broke off"
# Status of an answer -> what it means and what to do.
MEANINGS = {
    401: "the Hub does not know who you are: log in with `hf auth login` or set HF_TOKEN, then " + AGAIN,
    403: "your token may not do this to {repo}: take one that may write there or another repository, then " + AGAIN,
    404: "the Hub shows you no {repo}: check the name and the rights of your token, then " + AGAIN,
    409: "{repo} was changed by somebody else at the same time: nothing was committed, " + AGAIN,
    412: "{repo} was changed by somebody else at the same time: nothing was committed, " + AGAIN,
    429: "the Hub asks you to slow down: wait some minutes, then " + AGAIN,
}


def stale(present: Iterable[str], new: Iterable[str]) -> list[str]:
    """Return the names of a repository or folder that an earlier push left and that the new files do not replace."""
    return sorted(name for name in set(present) - set(new) if OURS.fullmatch(name))


def check_name(repo: str) -> None:
    """Raise `UserError` for what cannot be the name of a repository."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--repo {repo!r} is no name of a repository: {one_line(error)}") from error
    if repo.count("/") != 1:
        raise UserError(f"--repo {repo!r} is no name of a repository: give it as user/name.")


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Make `repo` hold what `folder` holds, in one commit that also deletes what is stale; return its address.

    A commit is all or nothing, where `upload_folder` may make several of a large folder: nobody ever downloads new
    shards beside an old single file. Raises `UserError` with the remedy if the Hub fails.
    """
    check_name(repo)
    api = HfApi()
    with hub_errors(repo):
        url = api.create_repo(repo, private=private or None, exist_ok=True)
        there = api.model_info(repo)
        if private and not there.private:
            raise UserError(f"{repo} is public already: make it private in its settings, or leave --private out.")
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        old = stale([file.rfilename for file in there.siblings or []], [path.name for path in paths])
        operations = [CommitOperationDelete(name, is_folder=False) for name in old]
        operations += [CommitOperationAdd(path.name, path) for path in paths]
        api.create_commit(repo, operations, commit_message="Publish with hf-swin", parent_commit=there.sha)
    return str(url)


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn what the Hub or the way to it does wrong into a `UserError` that says what to do."""
    try:
        yield
    except UserError:
        raise
    except (HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError) as error:
        raise UserError(_sentence(repo, error)) from error
    except ValueError as error:  # what the Hub finds wrong in the head of a card
        raise UserError(f"{repo} is refused: {one_line(error)}") from error


def _sentence(repo: str, error: BaseException) -> str:
    if constants.is_offline_mode():
        return f"{repo} was not reached, because HF_HUB_OFFLINE is set: unset it and run the same command again."
    answer, cause = None, error
    while cause is not None and answer is None:  # uploads in threads wrap the answer in a RuntimeError
        answer, cause = getattr(cause, "response", None), cause.__cause__
    if answer is None:
        kind = type(error.__cause__ or error).__name__
        return f"the connection to the Hub broke ({kind}: {one_line(error)}): {AGAIN}."
    status = answer.status_code
    if status in MEANINGS:
        return f"{MEANINGS[status].format(repo=repo)} ({status})."
    if status >= 500:
        return f"the Hub has trouble of its own ({status}): wait a little, then {AGAIN}."
    return f"the Hub refuses {repo} ({status}): {one_line(error)}"
