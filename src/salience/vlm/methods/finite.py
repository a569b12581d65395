"""Checks that ranked values are finite: torch sorts NaN first, so tokens 0 .. k - 1 would stay."""

from __future__ import annotations

import torch
from torch import Tensor


def require_finite(values: Tensor, method: str, what: str, *, dtype: torch.dtype | None = None) -> None:
    """Raise a ValueError unless all of `values` are finite.

    Args:    method: whose ranking it is   what: a plural noun for the values
             dtype: in which they were computed, if not their own
    """
    if values.is_meta:  # shapes alone: nothing is computed
        return
    wrong = values.numel() - int(values.isfinite().sum())
    if wrong:
        narrow = str(dtype or values.dtype).removeprefix("torch.")
        raise ValueError(
            f"method {method!r} ranks tokens by {what} that must be finite, and {wrong} of {values.numel()} are NaN or "
            f"infinite: a weight may be damaged, or {narrow} too narrow for what is computed (try float32)."
        )
