"""Bootstrap intervals of an accuracy: whole pictures are resampled, because a picture's questions are correlated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor


def interval(
    correct: Tensor, picture: Tensor, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the share of right questions, resampling whole pictures.

    Args:    correct: (Q,) bool, or shares or differences   picture: (Q,) the picture each question belongs to
             level: share of draws inside
    Returns: (low, high)
    Raises:  ValueError when there is no question, or level is not between 0 and 1
    """
    if len(correct) == 0:
        raise ValueError("correct must hold at least one question.")
    return intervals(picture, level=level, draws=draws, seed=seed)(correct)


def intervals(
    picture: Tensor, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Callable[[Tensor], tuple[float, float]]:
    """Return `interval` as a function of marks: the pictures are drawn once for many marks of the same questions.

    Args:    picture: (Q,) the picture each question belongs to   level, draws, seed: as in `interval`
    Returns: a function of marks (Q,) that gives (low, high)
    Raises:  ValueError when there is no question, or level is not between 0 and 1
    """
    if len(picture) == 0:
        raise ValueError("picture must hold at least one question.")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level!r}.")
    _, group = np.unique(picture.numpy(), return_inverse=True)
    asked = np.bincount(group).astype(np.float64)  # (P,) questions a picture
    drawn = np.random.default_rng(seed).integers(0, len(asked), size=(draws, len(asked)))
    counted = asked[drawn].sum(1)

    def of(marks: Tensor) -> tuple[float, float]:
        right = np.bincount(group, weights=marks.numpy().astype(np.float64))
        low, high = np.quantile(right[drawn].sum(1) / counted, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return of
