"""The kernel for attention in windows on a CPU: the answers and gradients of sdpa, and what it leaves to sdpa."""

import logging
import platform
import shutil

import pytest
import torch
from torch.nn import functional as F

from hf_swin import kernels, window_kernel
from hf_swin.modeling_attention import FORBIDDEN
from hf_swin.modeling_windows import WindowLayout, partition, separated, unpartition
from hf_swin.window_kernel import mixed_globally, mixed_in_windows, window_attention, window_attention_backward

from compare import answers_and_gradients, assert_close, assert_train_alike, relative_error
from tiny import model_of, pixels


pytestmark = pytest.mark.skipif(not kernels.compiled(), reason="no C++ compiler can make the kernel here")

SWINS = ["hf_swin", "hf_swin_v2"]
WIDE = {"embed_dim": 48}  # heads of 24
# what differs from tiny.SWIN (grid of 16, windows of 4, heads of 12), and the image's size
CASES = {
    "fitting": ({}, (64, 64)),
    "padded": ({}, (60, 52)),
    "rectangle": ({"embed_dim": 32}, (32, 96)),  # heads of 16
    "smaller than a window": ({}, (12, 12)),
    "lower than a window": ({}, (8, 72)),
    "one token high": ({}, (4, 40)),
    "padded up to a window": ({"small_input": "pad"}, (12, 40)),
    "square windows for small images": ({"small_input": "square"}, (12, 40)),
    "shifts of another size": ({"small_input": "fixed"}, (12, 40)),
    "always shifted": ({"always_partition": True}, (16, 16)),
    "windows of 12": ({"window_size": 12, "image_size": 96, "embed_dim": 32}, (96, 96)),
    "windows of 7": ({"window_size": 7, **WIDE}, (64, 64)),
    "windows of 8": ({"window_size": 8, "embed_dim": 64}, (64, 128)),  # heads of 32
    "rectangular windows": ({"window_size": [[3, 5], [2, 4]], **WIDE}, (48, 80)),
    "heads of 40": ({"embed_dim": 80, "depths": [2], "num_heads": [2]}, (64, 64)),
    "heads of 5": ({"embed_dim": 10, "depths": [2], "num_heads": [2]}, (64, 64)),
}


@pytest.fixture
def calls(monkeypatch):
    """Every call that reaches the kernel, as the layout of its windows."""
    layouts, on_grid = [], window_kernel.WindowKernel.on_grid

    def remembering(self, module, query, key, value, layout):
        layouts.append(layout)
        return on_grid(self, module, query, key, value, layout)

    monkeypatch.setattr(window_kernel.WindowKernel, "on_grid", remembering)
    return layouts


@pytest.fixture
def fresh_cache(monkeypatch, tmp_path):
    """An empty cache folder, and a kernel that is not loaded yet; afterwards all is as before."""
    monkeypatch.setattr(kernels.constants, "HF_HOME", str(tmp_path / "home"))
    kernels.library.cache_clear()
    yield tmp_path / "home" / "hf_swin" / "kernels"
    monkeypatch.undo()
    kernels.library.cache_clear()


def trained(model, implementation, x):
    model.set_attn_implementation(implementation)
    return answers_and_gradients(model, x)


def inferred(model, implementation, x):
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        outputs = model(x, output_hidden_states=True)
    return [outputs.logits, *outputs.hidden_states]


def assert_agrees_with_sdpa(model, x, tolerance=1e-5):
    assert_train_alike(trained(model, "window_kernel", x), trained(model, "sdpa", x), tolerance)


@pytest.mark.parametrize("family", SWINS)
@pytest.mark.parametrize("case", CASES)
def test_answers_and_gradients_are_those_of_sdpa(family, case, calls):
    overrides, size = CASES[case]
    model, x = model_of(family, **overrides), pixels(*size)
    assert_agrees_with_sdpa(model, x)
    blocks = sum(model.config.depths)
    assert len(calls) == blocks, "one call for each block"
    assert_close(inferred(model, "window_kernel", x), inferred(model, "sdpa", x), 1e-5, "inference")
    assert len(calls) == 2 * blocks


def test_the_cases_have_shifted_and_padded_windows(calls):
    """What the parity above is for: it says little where nothing is shifted or padded."""
    for case in ("fitting", "padded", "always shifted"):
        overrides, size = CASES[case]
        inferred(model_of("hf_swin", **overrides), "window_kernel", pixels(*size))
    assert any(any(layout.shift) for layout in calls)
    assert any(layout.padded != layout.grid and any(layout.shift) for layout in calls)
    assert any(layout.grid == layout.window and all(layout.shift) for layout in calls)


def test_without_a_bias_of_the_projections_answers_are_those_of_sdpa():
    assert_agrees_with_sdpa(model_of("hf_swin", qkv_bias=False), pixels(60))


def test_a_temperature_beyond_its_bound_is_held_and_has_no_gradient():
    model = model_of("hf_swin_v2")
    scales = [parameter for name, parameter in model.named_parameters() if name.endswith("logit_scale")]
    with torch.no_grad():
        scales[0].fill_(4.7)  # log(100) is 4.605
    assert_agrees_with_sdpa(model, pixels(64), 5e-5)
    assert len(scales) == 4 and not scales[0].grad.any() and scales[1].grad.any()


@pytest.mark.parametrize("family", SWINS)
def test_training_mode_is_that_of_sdpa(family, calls):
    """Dropped paths need no fallback; only dropped attention weights do."""
    model = model_of(family, drop_path_rate=0.3).train()
    answers = {}
    for implementation in ("window_kernel", "sdpa"):
        torch.manual_seed(3)
        answers[implementation] = trained(model, implementation, pixels(64))[0]
    assert len(calls) == 4
    assert_close(answers["window_kernel"], answers["sdpa"])


# the operator itself, against the definition in float64


def operands(grid=(6, 8), window=(3, 4), shift=(1, 2), heads=2, head_dim=20, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shape, tokens = (batch, *grid, heads * head_dim), window[0] * window[1]
    query, key, value = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    bias = torch.randn(heads, tokens, tokens, generator=generator)
    scale = torch.rand(heads, generator=generator) + 0.2
    return query, key, value, bias, scale, [*window, *shift]


def by_definition(query, key, value, bias, scale, layout, cosine):
    query, key, value, bias, scale = (tensor.double() for tensor in (query, key, value, bias, scale))
    layout = WindowLayout(tuple(query.shape[1:3]), tuple(layout[:2]), tuple(layout[2:]))
    heads = len(bias)
    query, key, value = (
        partition(tensor, layout).unflatten(-1, (heads, -1)).transpose(1, 2) for tensor in (query, key, value)
    )
    if cosine:
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    scores = query @ key.mT * scale[:, None, None] + bias
    forbidden = separated(layout, False, torch.device("cpu"))
    if forbidden is not None:
        scores = scores.unflatten(0, (-1, len(forbidden))).masked_fill(forbidden, FORBIDDEN).flatten(0, 1)
    return unpartition((scores.softmax(-1) @ value).transpose(1, 2).flatten(2), layout)


LAYOUTS = {
    "shifted": {},
    "unshifted": {"shift": (0, 0)},
    "shifted down": {"shift": (2, 0)},
    "shifted across": {"shift": (0, 1)},
    "one window": {"grid": (3, 4)},
    "one token": {"grid": (1, 1), "window": (1, 1), "shift": (0, 0)},
    "one column": {"grid": (9, 1), "window": (3, 1), "shift": (1, 0)},
    "just a vector": {"grid": (4, 8), "window": (4, 4), "shift": (2, 2), "head_dim": 16},
    "a vector and one": {"grid": (34, 1), "window": (17, 1), "shift": (8, 0), "head_dim": 17},
    "no image": {"batch": 0},
}


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_operator_is_its_definition(layout, cosine):
    inputs = operands(**LAYOUTS[layout])
    # Without cosines the scale is a constant of the config.
    leaves = [tensor.requires_grad_(True) for tensor in inputs[: 5 if cosine else 4]]
    answer, expected = window_attention(*inputs, cosine), by_definition(*inputs, cosine)
    change = torch.randn(answer.shape)
    gradients = torch.autograd.grad(answer, leaves, change)
    expected_gradients = torch.autograd.grad(expected, leaves, change.double())
    if not answer.numel():
        assert answer.shape == expected.shape and not gradients[3].any()
        return
    assert_close(answer, expected, 2e-6)
    largest = max(gradient.abs().max() for gradient in expected_gradients)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert (gradient - other).abs().max() <= 5e-6 * largest


def test_parts_of_one_product_are_read_where_they_lie():
    query, key, value, *rest = operands()
    together = torch.cat([query, key, value], dim=-1)
    parts = together.chunk(3, dim=-1)
    assert not parts[0].is_contiguous()
    assert torch.equal(mixed_in_windows(*parts, *rest, False), mixed_in_windows(query, key, value, *rest, False))
    turned = query.transpose(1, 2).contiguous().transpose(1, 2)  # no one step from token to token
    assert torch.equal(mixed_in_windows(turned, parts[1], value, *rest, True), mixed_in_windows(*parts, *rest, True))


def test_bfloat16_is_rounded_once_at_the_end():
    inputs = operands(dtype=torch.bfloat16)
    for cosine in (False, True):
        answer = mixed_in_windows(*inputs, cosine)
        assert answer.dtype == torch.bfloat16
        assert torch.allclose(answer.double(), by_definition(*inputs, cosine), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 17, 197])
@pytest.mark.parametrize("width", [5, 64])
def test_all_tokens_are_one_window_without_a_bias(tokens, width, dtype):
    torch.manual_seed(tokens)
    query, key, value = torch.randn(2, tokens, 3 * 3 * width).to(dtype).chunk(3, dim=-1)  # three heads
    by_head = [x.double().unflatten(-1, (3, width)).transpose(1, 2) for x in (query, key, value)]
    expected = F.scaled_dot_product_attention(*by_head, scale=0.3).transpose(1, 2).flatten(2)
    assert_close(mixed_globally(query, key, value, 3, 0.3), expected, 1e-6 if dtype == torch.float32 else 8e-3)


@pytest.mark.parametrize("cosine", [False, True])
def test_extreme_scores_give_finite_answers(cosine):
    query, key, value, bias, scale, layout = operands()
    inputs = [query * 1e3, key * 1e3, value, bias, scale * 100, layout]
    leaves = [tensor.requires_grad_(True) for tensor in inputs[:5]]
    answer = window_attention(*inputs, cosine)
    gradients = torch.autograd.grad(answer.sum(), leaves)
    assert all(tensor.isfinite().all() for tensor in (answer, *gradients))
    if cosine:  # here scores stay small enough for the mask
        assert_close(answer.detach(), by_definition(*inputs, cosine).detach(), 1e-4)
    assert answer.abs().max() <= value.abs().max() * 1.0001


def test_keys_of_zero_give_finite_gradients():
    """Padded tokens have keys of exactly zero in Swin v2, which has no bias there."""
    query, key, value, *rest = operands()
    key[:, -1] = 0
    key.requires_grad_(True)
    answer = window_attention(query, key, value, *rest, True)
    assert_close(answer.detach(), by_definition(query, key, value, *rest, True).detach(), 2e-6)
    answer.sum().backward()
    assert key.grad.isfinite().all()


def test_what_is_no_number_stays_visible_in_its_window_only():
    inputs = operands(shift=(0, 0))
    inputs[2][0, 0, 0, 0] = float("nan")
    answer = mixed_in_windows(*inputs, False)
    assert answer[0, :3, :4, 0].isnan().all() and answer.isnan().sum() == 12


@pytest.mark.parametrize("cosine", [False, True])
def test_the_operator_keeps_the_promises_of_an_operator(cosine):
    inputs = operands()
    for tensor in inputs[:5]:
        tensor.requires_grad_(True)
    promises = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(window_attention, (*inputs, cosine), test_utils=promises)
    query, key, value, bias, scale, layout = operands()
    arguments = (query, key, value, bias, scale, torch.randn_like(query), layout, cosine)
    torch.library.opcheck(window_attention_backward, arguments, test_utils=("test_schema", "test_faketensor"))


# numbers of other types, threads, compilers


@pytest.mark.parametrize("family", SWINS)
def test_bfloat16_is_close_to_float32(family, calls):
    model = model_of(family).to(torch.bfloat16)
    x = pixels(60)
    logits = inferred(model, "window_kernel", x.to(torch.bfloat16))[0]
    assert len(calls) == 4 and logits.dtype == torch.bfloat16
    exact = inferred(model.float(), "sdpa", x.to(torch.bfloat16).float())[0]
    assert (logits - exact).norm() <= 2e-2 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("overrides", [{}, {"use_absolute_embeddings": True}], ids=["plain", "absolute positions"])
@pytest.mark.parametrize("family", SWINS)
def test_gradients_under_autocast_are_finite_and_close(family, overrides, dtype):
    """With absolute positions tokens stay float32, and only the projections make them the type of autocast."""
    model, x = model_of(family, **overrides), pixels(60 if dtype == torch.bfloat16 else 64)
    _, exact = trained(model, "sdpa", x)
    with torch.autocast("cpu", dtype=dtype):
        _, gradients = trained(model, "window_kernel", x)
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
    assert relative_error(gradients["classifier.weight"], exact["classifier.weight"]) <= 5e-2


@pytest.mark.parametrize("family", SWINS)
def test_two_threads_answer_as_one_does(family):
    model, x = model_of(family), pixels(60)
    outputs, gradients = trained(model, "window_kernel", x)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other_outputs, other_gradients = trained(model, "window_kernel", x)
    finally:
        torch.set_num_threads(threads)
    assert_close(other_outputs, outputs, 2e-6)
    for name, gradient in gradients.items():
        assert_close(other_gradients[name], gradient, 1e-5, name)


def test_two_threads_each_do_their_share():
    inputs = operands(batch=3)  # of 12 windows and 2 heads
    threads, change = torch.get_num_threads(), torch.randn(inputs[0].shape)
    one = [mixed_in_windows(*inputs, True), *window_attention_backward(*inputs[:5], change, inputs[5], True)]
    torch.set_num_threads(2)
    try:
        two = [mixed_in_windows(*inputs, True), *window_attention_backward(*inputs[:5], change, inputs[5], True)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one[:4], two[:4], strict=True))
    assert_close(two[4:], one[4:], 2e-6)


@pytest.mark.parametrize("family", SWINS)
def test_a_compiler_leaves_the_kernel_as_it_is(family):
    model, x = model_of(family, depths=[1], num_heads=[2]), pixels(60)
    outputs, gradients = trained(model, "window_kernel", x)
    torch._dynamo.reset()
    names = []

    def backend(graph, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    model.forward = torch.compile(model.forward, fullgraph=True, backend=backend)
    compiled_outputs, compiled_gradients = trained(model, "window_kernel", x)
    assert sum("hf_swin.window_attention" in name for name in names) == 1
    assert_close(compiled_outputs, outputs, 1e-6)
    for name, gradient in gradients.items():
        assert_close(compiled_gradients[name], gradient, 1e-5, name)


# what the kernel leaves to sdpa


def fallback(family, x, dtype=torch.float32, train=False, **overrides):
    model = model_of(family, **overrides).to(dtype).train(train)
    answers = []
    for implementation in ("window_kernel", "sdpa"):
        torch.manual_seed(5)
        answers.append(trained(model, implementation, x.to(dtype)))
    return answers


def assert_equal_answers(answers):
    (outputs, gradients), (expected_outputs, expected_gradients) = answers
    assert all(torch.equal(one, other) for one, other in zip(outputs, expected_outputs, strict=True))
    assert all(torch.equal(gradient, expected_gradients[name]) for name, gradient in gradients.items())


@pytest.mark.parametrize("family", SWINS)
def test_other_types_are_left_to_sdpa(family, calls):
    assert_equal_answers(fallback(family, pixels(60), torch.float64))
    assert not calls


@pytest.mark.parametrize("family", SWINS)
def test_dropped_weights_are_left_to_sdpa_in_training_only(family, calls):
    assert_equal_answers(fallback(family, pixels(60), train=True, attention_probs_dropout_prob=0.5))
    assert not calls
    inferred(model_of(family, attention_probs_dropout_prob=0.5), "window_kernel", pixels(60))
    assert len(calls) == 4


@pytest.mark.parametrize("family", SWINS)
def test_hidden_padding_is_left_to_sdpa_where_there_is_padding(family, calls):
    assert_equal_answers(fallback(family, pixels(60, 44), mask_padding=True))
    assert all(layout.padded == layout.grid for layout in calls)
    calls.clear()
    answers = fallback(family, pixels(64), mask_padding=True)
    assert len(calls) == 4
    assert_close(answers[0][0], answers[1][0])


@pytest.mark.parametrize("family", SWINS)
def test_who_wants_the_weights_gets_them(family, calls):
    model, x = model_of(family), pixels(60)
    model.set_attn_implementation("window_kernel")
    with torch.inference_mode():
        outputs = model(x, output_attentions=True)
    assert not calls and [weights.shape[-2:] for weights in outputs.attentions] == [(16, 16)] * 4
    assert_close(sum(weights.sum(-1).mean() for weights in outputs.attentions), torch.tensor(4.0))
    assert_close(outputs.logits, inferred(model, "window_kernel", x)[0])
    assert len(calls) == 4


def test_a_vit_takes_the_name_and_is_sdpa():
    model, x = model_of("hf_vit"), pixels(32)
    assert all(
        torch.equal(a, b) for a, b in zip(inferred(model, "window_kernel", x), inferred(model, "sdpa", x), strict=True)
    )


# how it is compiled and kept


def test_loading_leaves_tiny_numbers_as_they_are():
    """The library of -ffast-math makes a whole process take numbers below 1e-38 for zero."""
    assert kernels.library() is not None
    assert (torch.tensor(1e-40) * 1).item() != 0.0
    assert (torch.full((64,), 1e-40) * 0.5 != 0).all()


@pytest.mark.parametrize("extra", [[], ["-mno-avx512f"]], ids=["this processor", "half as wide vectors"])
def test_a_fresh_kernel_is_kept_once_and_answers_alike(extra, fresh_cache, monkeypatch):
    if extra and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the flag is one of x86")
    monkeypatch.setattr(kernels, "FLAGS", [*kernels.FLAGS, *extra])
    assert kernels.library() is not None
    kept = list(fresh_cache.iterdir())
    assert [path.suffix for path in kept] == [".so"]
    assert (torch.tensor(1e-40) * 1).item() != 0.0
    for layout in ("shifted", "just a vector", "a vector and one"):
        inputs = operands(**LAYOUTS[layout])
        assert_close(mixed_in_windows(*inputs, True), by_definition(*inputs, True), 2e-6)
    if not extra:
        assert_agrees_with_sdpa(model_of("hf_swin_v2"), pixels(60))
    changed = kept[0].stat().st_mtime_ns
    kernels.library.cache_clear()
    assert kernels.library() is not None
    assert [path.stat().st_mtime_ns for path in fresh_cache.iterdir()] == [changed]


def without_compiler(monkeypatch, how, tmp_path):
    if how == "nothing installed":
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
        assert shutil.which("g++") is None
    elif how == "CXX names nothing":
        monkeypatch.setenv("CXX", "/nonexistent")
    else:
        broken = tmp_path / "broken"
        broken.write_text('#!/bin/sh\nfor last; do true; done\necho half > "$last"\necho out of paper >&2\nexit 1\n')
        broken.chmod(0o755)
        monkeypatch.setenv("CXX", str(broken))


@pytest.mark.parametrize("how", ["nothing installed", "CXX names nothing", "CXX fails half way"])
def test_without_a_compiler_sdpa_answers_after_one_warning(how, fresh_cache, monkeypatch, tmp_path, caplog, calls):
    without_compiler(monkeypatch, how, tmp_path)
    model, x = model_of("hf_swin"), pixels(60)
    with caplog.at_level(logging.WARNING):
        assert kernels.library() is None and not kernels.compiled()
        answers = inferred(model, "window_kernel", x)
    warnings = [record.getMessage() for record in caplog.records if "compiled" in record.getMessage()]
    assert len(warnings) == 1 and "PyTorch's own" in warnings[0]
    assert how != "CXX fails half way" or "out of paper" in warnings[0]
    assert not list(fresh_cache.iterdir()) and not calls
    assert all(torch.equal(a, b) for a, b in zip(answers, inferred(model, "sdpa", x), strict=True))


def test_a_cache_that_cannot_be_written_is_no_error(fresh_cache, caplog):
    fresh_cache.parent.parent.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert kernels.library() is None
    assert len(caplog.records) == 1
