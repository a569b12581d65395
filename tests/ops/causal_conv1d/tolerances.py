"""How far the fused path may be from the reference: a few units in the last place of what y is stored in."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]

# Sums of at most nine terms and one sigmoid, in another order and with another exp: a few units in the last place of
# the type computed in; then one rounding, which may fall to the other side: one unit of the type stored.
CLOSE = {torch.float32: 2e-6, torch.float64: 4e-15, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def assert_close(got: Tensor, want: Tensor, *, terms: int = 1) -> None:
    """Equal within the dtype's tolerance, of the value and of the largest one; `terms`: sums of so many of them."""
    assert got.dtype == want.dtype
    within = CLOSE[want.dtype] * max(1.0, terms**0.5)  # roundings add up like a random walk
    largest = float(want.detach().abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(got, want, rtol=within, atol=within * max(1.0, largest))
