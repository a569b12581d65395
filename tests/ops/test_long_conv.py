"""The convolution by FFT beside the sum it stands for, forwards and backwards in time, with gradients."""

from __future__ import annotations

import pytest
import torch

from salience.ops import long_conv as module
from salience.ops.long_conv import fft_size, long_conv


@pytest.mark.parametrize("group", [1, 1 << 18])  # one row at a time, and all at once
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_it_is_the_sum(length: int, reverse: bool, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", group)
    g = torch.Generator().manual_seed(length)
    u, k = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((3, length, 2), (2, length)))
    u, k = u.requires_grad_(), k.requires_grad_()
    rows = torch.arange(length)
    lag = rows[:, None] - rows if not reverse else rows - rows[:, None]
    toeplitz = torch.where(lag >= 0, k[:, lag.clamp_min(0)], 0)  # (D, t, s)
    wanted, got = torch.einsum("dts,bsd->btd", toeplitz, u), long_conv(u, k, reverse=reverse)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13 * length)  # sums of so many products of size 1
    dy = torch.randn(wanted.shape, generator=g, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad(y, (u, k), dy) for y in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13 * 3 * length)  # the kernel's is over the rows too


def test_it_is_an_operator() -> None:
    u, k = torch.randn(2, 5, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    torch.library.opcheck(module.long_conv_fwd, (u, k, True), test_utils=("test_schema", "test_faketensor"))


def test_sizes_are_even_and_smooth() -> None:
    for least in range(1, 700):
        size = fft_size(least)
        wanted = next(n for n in range(least, 2 * least + 2) if n % 2 == 0 and smooth(n))
        assert size == wanted


def smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1
