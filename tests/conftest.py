"""Seeds, one thread, no network, and memory that is never zero by luck."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"  # read by huggingface_hub at import
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def reproducible():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def poisoned_empty(monkeypatch):
    """Fills what `torch.empty` allocates with NaN, so that a parameter that nobody initialises is seen."""

    def poison(allocate):
        def allocate_and_poison(*args, **kwargs):
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return allocate_and_poison

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
