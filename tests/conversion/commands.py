"""The commands as a user sees them: exit code, what they print, and what is on disk afterwards."""

import hashlib
import re
from pathlib import Path

from typer.testing import CliRunner

from hf_swin.cli import app


def run(*arguments):
    """Runs `hf-swin ARGUMENTS` in this process; what is not a plain exit is raised, as a user would see a traceback."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments):
    """Runs a command that must fail, and returns its one sentence."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return sentence(result.stderr)


def sentence(stderr: str) -> str:
    """The one sentence of an error, without what begins every one."""
    text = stderr.removeprefix("hf-swin: ").rstrip("\n")
    assert text != stderr and "Traceback" not in text and "\n" not in text, stderr
    assert not re.search(r"[a-z]\. [A-Z]", text), f"more than one sentence: {text}"
    return text


def converted(source, out, *arguments):
    """Converts a source and returns what was printed."""
    result = run("convert", source, "--out", out, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
