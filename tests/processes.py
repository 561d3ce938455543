"""Fresh processes that talk to the Hub on loopback, with the package or where it cannot be imported."""

import os
import pathlib
import subprocess
import sys


ROOT = pathlib.Path(__file__).parents[1]


def start(code, hub, tmp_path, *arguments, package=True, offline=False):
    """A fresh process in another directory; the code of the package is on its path, or cannot be imported at all."""
    home, cwd = tmp_path / "home", tmp_path / "elsewhere"
    cwd.mkdir(exist_ok=True)
    set_here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_fake", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    set_here |= {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    set_here["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")]) if package else ""
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "PYTHONPATH")}
    environment = {**kept, **set_here, **({"HF_HUB_OFFLINE": "1"} if offline else {})}
    code = code if package else WITHOUT_PACKAGE + code
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-4000:]
    return out


def run(*arguments, **options):
    return finish(start(*arguments, **options))


WITHOUT_PACKAGE = """
import sys

class Blocked:  # also where the package is installed in the environment
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_swin":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
try:
    import hf_swin
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package is there")
"""
