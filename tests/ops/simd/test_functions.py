"""exp2, softplus and sigmoid against float64; loads and stores of every element type against torch's conversions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salience.ops.simd.element import BF16, ELEMENTS, F16, F32, F64, element_of
from salience.ops.simd.registers import native

from .kernels import apply

FLOATS = (torch.float32, torch.float64)


def _exact(kind: str, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.longdouble)
    e = np.exp(-abs(x))
    if kind == "exp2":
        return np.exp2(x)
    return np.maximum(x, 0) + np.log1p(e) if kind == "softplus" else np.where(x < 0, e, 1) / (1 + e)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["exp2", "softplus", "sigmoid"])
def test_functions_are_accurate(kind: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.linspace(-80, 80, 40_003, dtype=dtype), torch.randn(20_000, dtype=dtype, generator=generator)])
    got, want = apply(kind, x).numpy().astype(np.longdouble), _exact(kind, x.numpy())
    eps = torch.finfo(dtype).eps
    # exp2 is right to one unit in the last place; the others round x and log2(e), |x| eps relative to exp(-|x|).
    allowed = eps * (1.1 if kind == "exp2" else 2 + abs(x.numpy()))
    assert (abs(got - want) <= allowed * want).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("registers", [False, True])
def test_exp2_within_its_range_in_vectors_of_either_length(registers: bool, dtype: torch.dtype) -> None:
    lowest = 126 if dtype == torch.float32 else 1022
    x = torch.cat([torch.linspace(-lowest, lowest, 40_003, dtype=dtype), torch.tensor([0.0, torch.nan], dtype=dtype)])
    element = element_of(dtype)
    got = apply("exp2_within", x, element=native(element) if registers else element)
    want = _exact("exp2", x[:-1].numpy())
    # right to one unit in the last place, as exp2
    assert (abs(got[:-1].numpy() - want) <= 1.1 * torch.finfo(dtype).eps * want).all() and got[-1].isnan()


@pytest.mark.parametrize("dtype", FLOATS)
def test_silu_for_halves(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-86, 86, 40_003), torch.tensor([1e30, torch.inf, -3e4, torch.nan])]).to(dtype)
    got, want = apply("silu_for_halves", x), torch.nn.functional.silu(x.double())
    # the cubic's 7.5e-5, and |x| eps of the rounding of x log2(e); silu(-3e4) is 0, or what exp(-87) leaves
    torch.testing.assert_close(got.double(), want, rtol=9e-5, atol=1e-32, equal_nan=True)


def test_a_native_vector_is_one_register() -> None:
    for element in (F32, F64, BF16, F16):
        narrow = native(element)
        assert narrow in (element, element.halved()) and narrow.name == element.name
        assert narrow.lanes * narrow.compute_size in (32, 64)


@pytest.mark.parametrize("dtype", FLOATS)
def test_special_values(dtype: torch.dtype) -> None:
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([0.0, -0.0, 3000.0, -3000.0, 1e30, -1e30, inf, nan], dtype=dtype)
    # Below its range exp2 gives 0, or the smallest normal number where the machine has no scaling instruction.
    tiny = torch.finfo(dtype).tiny
    want = torch.tensor([1.0, 1.0, inf, 0.0, inf, 0.0, inf, nan], dtype=dtype)
    torch.testing.assert_close(apply("exp2", x), want, atol=tiny, rtol=0, equal_nan=True)
    y = torch.tensor([inf, -inf, nan, 1e30, -1e30, 20.5], dtype=dtype)
    log2, softplus = torch.log(torch.tensor(2.0, dtype=dtype)), apply("softplus", y)
    torch.testing.assert_close(softplus, torch.nn.functional.softplus(y, threshold=1e9), atol=tiny, rtol=1e-6,
                               equal_nan=True)  # fmt: skip
    torch.testing.assert_close(apply("softplus", torch.zeros(1, dtype=dtype))[0], log2)
    torch.testing.assert_close(apply("sigmoid", y), torch.sigmoid(y), atol=tiny, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("n", [1, 7, 8, 15, 16, 17, 999, 1000, 1001, 2048])
def test_tails_are_copied_whole_and_no_further(dtype: torch.dtype, n: int) -> None:
    x = torch.randn(n + 64, generator=torch.Generator().manual_seed(n)).to(dtype)
    assert torch.equal(apply("copy", x[:n].contiguous()), x[:n])
    padded = torch.full((n + 64,), torch.nan, dtype=dtype)  # what lies behind the end is neither read nor written
    padded[:n] = x[:n]
    assert torch.equal(apply("copy", padded[:n]), x[:n])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("factor", [1.0, 1.1, 0.0007, 300.0])
def test_every_16_bit_number_loads_and_rounds_as_torch_does(dtype: torch.dtype, factor: float) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).clone()
    x[0] = factor
    got, want = apply("scale", x), (x[0].float() * x.float()).to(dtype)
    same = (got.view(torch.int16) == want.view(torch.int16)) | (got.isnan() & want.isnan())
    assert same.all(), (x[~same][:4], got[~same][:4], want[~same][:4])


def test_a_dtype_without_kernels_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"dtype: torch\.int64; the CPU kernels take float32"):
        element_of(torch.int64)
