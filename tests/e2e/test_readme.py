"""The README's code runs as it is printed, with small local folders in place of what the Hub and a run would give."""

import pathlib
import re

import pytest
import transformers
from PIL import Image

import hf_swin
from hf_swin.conversion import formats
from hf_swin.conversion.checkpoints import CHECKPOINTS

from tiny import SWIN, model_of


README = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def folders(tmp_path):
    """A stock repository and the folder of a run."""
    transformers.SwinForImageClassification(transformers.SwinConfig(**SWIN)).save_pretrained(tmp_path / "stock")
    model_of("hf_swin").save_pretrained(tmp_path / "run")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "run")
    return {"microsoft/swin-tiny-patch4-window7-224": tmp_path / "stock", "runs/mine": tmp_path / "run"}


def test_there_is_code_to_run():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_code_of_the_readme_runs(block, folders):
    for name, folder in folders.items():
        block = block.replace(name, str(folder))
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    if "maps" in names:
        assert names["logits"].isfinite().all() and len(names["maps"]) == sum(SWIN["depths"])
    if "feature_maps" in names:
        assert [tuple(x.shape) for x in names["feature_maps"]] == [(1, 192, 32, 40), (1, 384, 16, 20), (1, 768, 8, 10)]
    if "classify" in names:
        assert len(names["classify"](Image.new("RGB", (50, 40)))) == 5


def test_the_readme_of_conversion_has_every_format_every_file_and_the_right_count():
    folder = pathlib.Path(__file__).parents[2] / "conversion"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert not [name for name in formats.NAMES if f"`{name}`" not in text]
    assert not [path.name for path in folder.glob("*.py") if path.name != "__init__.py" and path.name not in text]
    for readme in (text, README):
        assert f"# {len(CHECKPOINTS)} published checkpoints" in readme
    assert f"All {len(formats.NAMES)} formats" in README


def test_every_file_of_the_package_is_in_the_readme():
    package = pathlib.Path(hf_swin.__file__).parent
    missing = [path.name for path in package.glob("*.py") if path.name != "__init__.py" and path.name not in README]
    assert not missing
