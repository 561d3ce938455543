"""How tensors and models are compared: the largest difference relative to the largest value."""

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


def answers_and_gradients(model, x: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Returns logits and hidden states, and by name the gradients of the pixels and of the parameters that have one."""
    model.zero_grad()
    x = x.clone().requires_grad_(True)
    outputs = model(x, output_hidden_states=True)
    tensors = [outputs.logits, *outputs.hidden_states]
    generator = torch.Generator().manual_seed(1)
    sum((tensor * torch.randn(tensor.shape, generator=generator)).mean() for tensor in tensors).backward()
    # The softmax does not change if all keys move together, so that the gradient of their bias is nothing but rounding.
    found = {name: parameter.grad for name, parameter in model.named_parameters() if not name.endswith("k_proj.bias")}
    found = {name: gradient for name, gradient in found.items() if gradient is not None}
    return [tensor.detach() for tensor in tensors], {"pixels": x.grad, **found}


def assert_train_alike(ours, theirs, tolerance: float = 1e-5) -> None:
    """What `answers_and_gradients` gave for two models agrees, and they have gradients of the same parameters."""
    (answers, gradients), (expected_answers, expected_gradients) = ours, theirs
    assert_close(answers, expected_answers, tolerance, "answers")
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected_gradients[name], tolerance, name)
