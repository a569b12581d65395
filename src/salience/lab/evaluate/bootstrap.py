"""Bootstrap intervals of an accuracy: whole pictures are resampled, because a picture's questions are correlated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

_DRAWS = 2000
_LEVEL = 0.95


def interval(correct: Tensor, picture: Tensor) -> tuple[float, float]:
    """Return (low, high), the 95 % percentile bootstrap interval of the share of right questions.

    Args:    correct: (Q,) bool, or shares or differences   picture: (Q,) the picture each question belongs to
    Raises:  ValueError when there is no question
    """
    return intervals(picture)(correct)


def intervals(picture: Tensor) -> Callable[[Tensor], tuple[float, float]]:
    """Return `interval` as a function of `correct`: the pictures are drawn once for all calls."""
    if len(picture) == 0:
        raise ValueError("picture must hold at least one question.")
    _, group = np.unique(picture.numpy(), return_inverse=True)
    asked = np.bincount(group).astype(np.float64)  # (P,) questions a picture
    drawn = np.random.default_rng(0).integers(0, len(asked), size=(_DRAWS, len(asked)))
    counted = asked[drawn].sum(1)

    def of(marks: Tensor) -> tuple[float, float]:
        right = np.bincount(group, weights=marks.numpy().astype(np.float64))
        low, high = np.quantile(right[drawn].sum(1) / counted, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return float(low), float(high)

    return of
