"""`linear_rows` with few and many rows, compared with torch's linear layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import salience.ops.linear_rows as api
from salience.ops.linear_rows import MOST_ROWS, _few_rows, linear_rows, plain_tensors
from salience.ops.linear_rows.cpu import forward

# (rows, inputs, outputs): tails of both, fewer than a vector, fewer than four, enough for several threads
SHAPES = [(1, 1, 1), (1, 5, 3), (2, 16, 4), (3, 48, 7), (8, 100, 80), (1, 768, 1023)]


def given(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(rows + inputs + outputs)
    return (
        torch.randn(rows, inputs).to(dtype),
        torch.randn(outputs, inputs).to(dtype),
        torch.randn(outputs).to(dtype),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [False, True])
def test_the_kernel(shape: tuple[int, int, int], dtype: torch.dtype, biased: bool) -> None:
    x, weight, bias = given(*shape, dtype)
    wanted = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    got = forward(x, weight, bias if biased else None)
    assert got.dtype == dtype and got.shape == wanted.shape
    # one rounding of the result, and sums of up to 768 products in float32 (float64): 1e-5 (1e-13) of a typical term
    rounding = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    sums = 1e-13 if dtype == torch.float64 else 1e-5
    off = (got.double() - wanted).abs()
    assert bool((off <= rounding * wanted.abs() + sums * shape[1] ** 0.5).all())


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = given(2, 512, 1030, torch.float32)
    found = []
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(forward(x, weight, bias))
    assert all(torch.equal(each, found[0]) for each in found)


@torch.no_grad()
def test_any_shape_and_strides() -> None:
    x, weight, bias = given(8, 40, 12, torch.float32)
    wanted = F.linear(x, weight, bias)
    assert linear_rows(x[0], weight, bias).shape == (12,)
    for view in (x.view(2, 2, 2, 40), x.view(8, 1, 40)):
        torch.testing.assert_close(linear_rows(view, weight, bias), wanted.view(*view.shape[:-1], 12))
    wide = torch.randn(8, 90)
    torch.testing.assert_close(linear_rows(wide[:, 7:47], weight), F.linear(wide[:, 7:47], weight))
    torch.testing.assert_close(linear_rows(x, weight.T.contiguous().T), F.linear(x, weight))
    torch.testing.assert_close(linear_rows(x, torch.randn(12, 80)[:, ::2]).shape, wanted.shape)


def test_what_is_left_to_torch() -> None:
    x, weight, bias = given(2, 40, 12, torch.float32)
    with torch.no_grad():
        assert _few_rows(x, nn.Parameter(weight), bias)
        assert not _few_rows(torch.randn(MOST_ROWS[torch.float32] + 1, 40), weight, bias)
        assert not _few_rows(x[:0], weight, bias)
        assert not _few_rows(x.double(), weight.double(), None)
        assert not plain_tensors(x.to("meta"), weight.to("meta"), None)
        assert not plain_tensors(x, weight.double(), None)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert linear_rows(x, weight, bias).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            linear_rows(x, weight[:, :39].contiguous(), bias)
    weight.requires_grad_()
    assert not _few_rows(x, weight, bias)
    linear_rows(x, weight, bias).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_rows_in_half_precision_gradients_too(dtype: torch.dtype) -> None:
    """Through torch's product where the machine has one, on copies in float32 where it has none."""
    x, weight, bias = (each.requires_grad_() for each in given(9, 40, 12, dtype))
    y = linear_rows(x, weight, bias)
    wanted = F.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(y.double(), wanted, rtol=2**-7, atol=2**-6)  # one or two roundings to 8 bits
    ours = torch.autograd.grad(y.sum(), [x, weight, bias])
    theirs = torch.autograd.grad(wanted.sum(), [x, weight, bias])
    assert [each.dtype for each in ours] == [dtype] * 3
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want, rtol=2**-7, atol=2**-5)  # and sums of up to 12 of them


@torch.no_grad()
def test_the_reference_is_torchs() -> None:
    x, weight, bias = given(2, 40, 12, torch.float32)
    assert torch.equal(linear_rows(x, weight, bias, backend="reference"), F.linear(x, weight, bias))
    torch.testing.assert_close(linear_rows(x, weight, bias), F.linear(x, weight, bias))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(32, 1, 1), (33, 7, 5), (130, 257, 97)])
def test_many_rows_through_onednn(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "onednn_is_faster", lambda: True)
    x, weight, bias = given(*shape, torch.float32)
    wide = torch.randn(shape[0], shape[1] + 3)[:, 1:-2].copy_(x)  # rows lie apart
    wanted = F.linear(x.double(), weight.double(), bias.double())
    within = 6e-6 * (shape[1] ** 0.5 + 1)  # float32 sums of products that are about 1
    apart = torch.randn(shape[2], 2 * shape[1])[:, ::2].copy_(weight)
    for got in (linear_rows(x, weight, bias), linear_rows(wide, weight, bias), linear_rows(x, apart) + bias):
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=within)


@torch.no_grad()
def test_which_rows_go_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = given(64, 40, 12, torch.float32)
    wanted, asked = F.linear(x, weight, bias), []
    for faster in (False, True):
        monkeypatch.setattr(api, "onednn_is_faster", lambda faster=faster: bool(asked.append(faster)) or faster)
        asked.clear()
        for view in (x, x.view(4, 16, 40), x.T.contiguous().T):
            torch.testing.assert_close(linear_rows(view, weight, bias), wanted.view(*view.shape[:-1], 12))
        assert len(asked) == 3
        with torch.enable_grad():
            assert linear_rows(x, nn.Parameter(weight), bias).requires_grad
        linear_rows(x[:20], weight, bias)
        linear_rows(x, weight, bias, backend="reference")
        linear_rows(x.double(), weight.double(), bias.double())
        assert linear_rows(x, torch.randn(0, 40)).shape == (64, 0)
        assert len(asked) == 3
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            linear_rows(x, weight[:, :39].contiguous(), bias)
