"""What `import hf_swin` costs and what it does not load."""

import os
import subprocess
import sys


def run(script: str) -> str:
    ran = subprocess.run([sys.executable, "-c", script], env={**os.environ}, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_import_loads_no_more_of_transformers_than_its_auto_classes():
    """The time is transformers' own; what could add to it is the modelling and image code, which stay out."""
    auto = "from transformers import AutoConfig, AutoModel; import sys; print(len(sys.modules))"
    ours = "import hf_swin, sys; print(len(sys.modules), *[m for m in sys.modules if m.startswith('hf_swin')])"
    count, *modules = run(ours).split()
    assert int(count) <= int(run(auto)) + 8, "import hf_swin pulls in more than it needs"
    assert sorted(modules) == ["hf_swin", "hf_swin.registration"]


def test_auto_classes_work_before_and_after_the_image_code_is_loaded():
    script = """
from transformers.models.auto import image_processing_auto
import hf_swin
from transformers import AutoModel, AutoImageProcessor
assert hf_swin.HfSwinConfig in image_processing_auto.IMAGE_PROCESSOR_MAPPING
assert hf_swin.HfSwinConfig in AutoModel._model_mapping
print(AutoModel._model_mapping[hf_swin.HfSwinConfig].__name__)
"""
    assert run(script) == "HfSwinModel"


def test_public_names_are_optimize_and_those_of_the_five_classes_of_three_families():
    import hf_swin

    classes = [name for name in hf_swin.__all__ if name.startswith("Hf")]
    assert len(classes) == 15 and {*classes, "optimize"} == set(hf_swin.__all__) <= set(dir(hf_swin))
    for name in hf_swin.__all__:
        assert getattr(hf_swin, name).__name__ == name


def test_registering_twice_is_harmless():
    from transformers import AutoModel

    from hf_swin.registration import register

    before = dict(AutoModel._model_mapping._model_mapping)
    register()
    assert dict(AutoModel._model_mapping._model_mapping) == before and before["hf_swin"] == "HfSwinModel"
