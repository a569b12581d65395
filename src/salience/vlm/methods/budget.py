"""Budgets of visual tokens: a ratio, an exact count, or a share of the scores' mass."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsIndex

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Exactly one of `keep`, `tokens` and `mass`; a mass may have bounds.

    Args:    keep: ratio in (0, 1]; k = max(1, floor(keep * n + 0.5))
             tokens: exact count per picture, 1 to n
             mass: share in (0, 1]; the fewest tokens whose shares (softmaxed scores, or normalised attention) reach it
             min, max: bounds on the tokens of a picture under a mass budget; a picture with fewer keeps all
    Raises:  ValueError when none or more than one is given, one is out of its range, or bounds come without a mass
    """

    keep: float | None = None
    tokens: int | None = None
    mass: float | None = None
    min: int | None = None
    max: int | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("keep", "tokens", "mass") if getattr(self, name) is not None}
        if len(given) != 1:
            came = " and ".join(f"{name}={value!r}" for name, value in given.items()) or "none of them"
            raise ValueError(f"exactly one of keep, tokens and mass is needed, not {came}.")
        for name in ("tokens", "min", "max"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _whole_number(name, getattr(self, name)))
        if self.mass is None and (self.min, self.max) != (None, None):
            raise ValueError(f"min and max bound a mass budget, and {next(iter(given))} is not a mass budget.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must be at most max, not {self.min} with max={self.max}.")
        for name in ("keep", "mass"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _share(name, value))

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that were given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def count(self, n: int) -> int:
        """Number of kept tokens, of `n`, under a `keep` or `tokens` budget.

        Raises:  ValueError when `tokens` is more than n, or the budget is a `mass`, which depends on the scores
        """
        if self.tokens is not None:
            if self.tokens > n:
                raise ValueError(f"tokens must be at most {n}, the visual tokens of a picture, not {self.tokens}.")
            return self.tokens
        if self.keep is None:
            raise ValueError(f"mass={self.mass} needs a method with scores; use keep= or tokens= with this one.")
        return max(1, math.floor(self.keep * n + 0.5))

    def counts(self, scores: Tensor, shares: Callable[[Tensor], Tensor] | None) -> list[int]:
        """Number of kept tokens of each picture.

        Args:    scores: (pictures, n) float32
                 shares: scores -> non-negative shares, each row adding up to 1; None for a method without scores
        Raises:  ValueError as `count` does
        """
        pictures, n = scores.shape
        if self.mass is None or shares is None:
            return [self.count(n)] * pictures
        if self.mass == 1.0:  # rounding must not drop the last, tiny shares
            return [n if self.max is None else min(self.max, n)] * pictures
        reached = shares(scores).double().sort(dim=1, descending=True).values.cumsum(1)  # (pictures, n)
        short = (reached < self.mass * reached[:, -1:]).sum(1)
        counts = (short + 1).clamp(min=self.min or 1).clamp(max=n if self.max is None else min(self.max, n))
        return [int(count) for count in counts]


def _whole_number(name: str, value: SupportsIndex) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return count


def _share(name: str, value: float) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0.0 < share <= 1.0 or isinstance(value, bool | str):
        raise ValueError(f"{name} must be a number above 0 and at most 1, not {value!r}.")
    return share
