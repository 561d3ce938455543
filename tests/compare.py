"""How two tensors are compared: the largest difference relative to the largest value."""

import torch


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-12)).item()


def assert_close(ours, theirs, tolerance: float = 1e-5, what: str = "") -> None:
    """Tensors, or equally long sequences of tensors, agree to `tolerance`."""
    if torch.is_tensor(ours):
        ours, theirs = [ours], [theirs]
    assert len(ours) == len(theirs), f"{what}: {len(ours)} against {len(theirs)} tensors"
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        error = relative_error(one, other)
        assert error <= tolerance, f"{what}[{index}] differs by {error:.1e}"
