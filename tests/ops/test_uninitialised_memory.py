"""Outputs on uninitialised memory: a kernel writes every element, whatever was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from salience import causal_conv1d, selective_scan
from salience.ops.linear_scan import linear_scan


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def scan() -> list[Tensor]:
    u, dt, z, B, C = (normal(1, 600, n) for n in (300, 300, 300, 4, 4))
    mask = (torch.arange(600) % 7 != 3)[None]
    A = -torch.randn(300, 4).exp()
    y = selective_scan(u, dt, A, B, C, z=z, dt_softplus=True, mask=mask, backend="cpu")
    return [y, *torch.autograd.grad(y.square().sum(), [u, dt, B, C, z])]


def convolution() -> list[Tensor]:
    x, weight, bias = normal(2, 600, 100), normal(100, 4), normal(100)
    y = causal_conv1d(x, weight, bias, mask=torch.arange(600).expand(2, 600) % 7 != 3, backend="cpu")
    return [y, *torch.autograd.grad(y.square().sum(), [x, weight, bias])]


def recurrence() -> list[Tensor]:
    a, b = normal(2, 60, 100), normal(2, 60, 100)
    x = linear_scan(a, b, mask=torch.arange(60).expand(2, 60) % 7 != 3, backend="cpu")
    return [x, *torch.autograd.grad(x.square().sum(), [a, b])]


@pytest.fixture
def filled_with_nan() -> Iterator[None]:
    """`torch.empty` gives NaN, as torch does for deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", [scan, convolution, recurrence])
@pytest.mark.usefixtures("filled_with_nan")
def test_every_element_is_written(case: Callable[[], list[Tensor]]) -> None:
    torch.manual_seed(0)
    found = case()
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(0)
    for got, want in zip(found, case(), strict=True):
        assert torch.equal(got, want)
