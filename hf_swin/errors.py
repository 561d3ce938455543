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
"""What goes wrong by no fault of the code, and how a command says it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake the user can mend: its message is one sentence that names the value and the remedy."""

    def __init__(self, message: str):
        # From a worker of a DataLoader the sentence comes at the end of a traceback.
        super().__init__(message.rpartition("UserError: ")[2].strip())


def one_line(error: BaseException, longest: int | None = 300) -> str:
    """Returns what a library's error says, in one line of at most `longest` characters."""
    return " ".join(str(error).split())[:longest]


@contextmanager
def errors_in_one_sentence(interrupted: str) -> Iterator[None]:
    """Quiet the libraries; turn what the user can mend into a sentence and exit code 2, Ctrl-C into `interrupted`."""
    import huggingface_hub  # here, because a command that only prints its help has no use for them
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    try:
        yield
    except UserError as error:
        print(f"hf-swin: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print(f"hf-swin: interrupted; {interrupted}", file=sys.stderr)
        raise SystemExit(130) from error
