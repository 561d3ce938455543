"""Products of packed weights, by the kernel and by oneDNN: the definition in float64, at awkward sizes."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from hf_swin import kernels
from hf_swin.packed_products import KERNEL, ONEDNN, products

from compare import assert_close


# The kernel is asked directly, whatever processor would be given it: it is right on all of them.
MAKERS = {
    "kernel": pytest.param(
        KERNEL, id="kernel", marks=pytest.mark.skipif(not kernels.compiled(), reason="no C++ compiler")
    ),
    "onednn": pytest.param(
        ONEDNN, id="onednn", marks=pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
    ),
}
# rows, inner, columns: one of each, strips of every height, threads that share columns or rows, several blocks, and
# panels that are not full.
SIZES = [(1, 1, 1), (1, 5, 3), (7, 24, 40), (49, 768, 1000), (128, 17, 33), (300, 96, 384), (1001, 30, 65)]
ACTIVATIONS = {
    None: lambda x: x,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def operands(rows, inner, columns, dtype):
    torch.manual_seed(rows)
    x, weight = 2 * torch.randn(rows, inner) + 1, torch.randn(columns, inner) / inner**0.5
    return [tensor.to(dtype) for tensor in (x, weight, torch.randn(columns), torch.randn(rows, columns))]


def expected(x, weight, bias, residual, activation, epsilon):
    x = x.double() if epsilon is None else F.layer_norm(x.double(), x.shape[-1:], eps=epsilon)
    y = ACTIVATIONS[activation](F.linear(x, weight.double(), bias.double()))
    return y if residual is None else residual.double() + y


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("maker", MAKERS.values())
def test_a_product_with_all_that_surrounds_it_is_its_definition(maker, dtype, size, threads):
    if maker is ONEDNN and not maker.fit(dtype):
        pytest.skip(f"oneDNN has no {dtype} here")
    x, weight, bias, residual = operands(*size, dtype)
    for activation, epsilon, added in itertools.product(maker.activations, (None, 1e-5), (None, residual)):
        y = maker.multiply(x, maker.pack(weight, bias, epsilon), activation, added)
        assert y.dtype == dtype
        assert_close(y, expected(x, weight, bias, added, activation, epsilon), TOLERANCES[dtype], f"{activation}")


@pytest.mark.parametrize("maker", MAKERS.values())
def test_views_are_read_as_what_they_show(maker):
    x, weight, bias, residual = operands(24, 20, 36, torch.float32)
    x = torch.randn(2, 6, 5, 40)[:, 1:4, 1:, ::2]  # (2, 3, 4, 20), every stride a strange one
    residual = torch.randn(2, 3, 36, 4).transpose(2, 3)
    turned = weight.T.contiguous().T  # the same weight, columns first
    result = maker.multiply(x, maker.pack(turned, bias), None, residual)
    assert_close(result, expected(x, weight, bias, residual, None, None), 2e-6)
    part = torch.cat([weight, weight], dim=1)[:, :20]
    assert maker.multiply(x, maker.pack(part, bias)).equal(maker.multiply(x, maker.pack(weight, bias)))


@pytest.mark.skipif(not kernels.compiled(), reason="no C++ compiler")
def test_activations_of_the_kernel_hold_from_end_to_end():
    x = torch.linspace(-30, 30, 6001)[:, None].repeat(1, 4)
    packed = KERNEL.pack(torch.eye(4), torch.zeros(4))
    for name, function in ACTIVATIONS.items():
        difference = (KERNEL.multiply(x, packed, name) - function(x.double())).abs()
        assert (difference <= 1e-6 + 3e-7 * x.abs()).all(), f"{name}: {difference.max()}"


@pytest.mark.skipif(not kernels.compiled(), reason="no C++ compiler")
def test_what_is_no_number_stays_none():
    packed = KERNEL.pack(torch.eye(8), torch.zeros(8))
    x = torch.zeros(3, 8)
    x[1] = float("nan")
    for name in ACTIVATIONS:
        assert KERNEL.multiply(x, packed, name).isnan().any(-1).tolist() == [False, True, False]


@pytest.mark.skipif(not kernels.compiled(), reason="no C++ compiler")
@pytest.mark.parametrize("x", [torch.zeros(2, 9), torch.zeros(2, 7), torch.zeros(2, 8, dtype=torch.bfloat16)])
def test_what_does_not_fit_a_layer_is_refused(x):
    with pytest.raises(ValueError, match="takes 8 numbers"):
        KERNEL.multiply(x, KERNEL.pack(torch.eye(8), torch.zeros(8)))


def test_each_processor_gets_products_that_fit_it():
    maker = products(torch.float32)
    assert maker is None or maker.fit(torch.float32)
    assert products(torch.float64) is None
    ours = kernels.compiled() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert (maker is KERNEL) == ours
    tiles = torch.cpu._is_amx_tile_supported()
    assert (products(torch.bfloat16) is KERNEL) == (ours and not tiles)
