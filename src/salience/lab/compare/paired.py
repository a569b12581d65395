"""Two models on the same test examples: is the difference more than chance?

Each example's targets stand or fall together, so examples are what is resampled and what is paired. Letters: R runs
(seeds) of a model, n test examples; `right` and `asked` are an example's targets that were hit and that there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

TEST = (
    "exact paired sign-flip test over test examples, seeds pooled (with one seed and one target an example: "
    "McNemar's), Holm's correction over all pairs"
)
INTERVAL = "95% bootstrap over test examples and seeds together"
_DRAWS = 2000


def accuracy_interval(right: Counts, asked: Counts, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of sum(right) / sum(asked), resampling examples and runs. right: (R, n)   asked: (n,)"""
    shares = _resampled(right, asked, seed)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def sign_flip(difference: Counts) -> float:
    """P(|sum of +-d_i| >= |sum of d_i|) where every sign is a fair coin: exact, by the sum's characteristic function.

    difference: (n,) whole numbers. Rounding keeps what is below about 1e-12 from being told apart from it.
    """
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    largest = int((sizes * counts).sum())
    if largest == 0:
        return 1.0
    points = 2 * largest + 1
    angle = 2 * np.pi * np.arange(points) / points
    transform = np.ones(points)
    for size, count in zip(sizes, counts, strict=True):
        transform *= np.cos(size * angle) ** int(count)
    chance = np.fft.ifft(transform).real  # chance[k]: of the sum k, negative sums from the end
    seen = abs(int(difference.sum()))
    total = np.minimum(np.arange(points), points - np.arange(points))  # |sum|
    return float(min(1.0, max(1e-12, chance[total >= seen].sum())))


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order that came."""
    order = sorted(range(len(chances)), key=lambda at: chances[at])
    corrected, least = [0.0] * len(chances), 0.0
    for rank, at in enumerate(order):
        least = max(least, min(1.0, (len(chances) - rank) * chances[at]))
        corrected[at] = least
    return corrected


def compare_pairs(right: Mapping[str, Counts], asked: Counts, *, seed: int = 0) -> list[dict[str, Any]]:
    """One line for each two models: `first` - `second` in accuracy, its interval, p, and whether every seed agrees.

    right: model -> (R, n); models are compared on as many runs as both have
    """
    found: list[dict[str, Any]] = []
    for first, second in combinations(right, 2):
        runs = min(len(right[first]), len(right[second]))
        apart = right[first][:runs] - right[second][:runs]  # (runs, n)
        low, high = np.quantile(_resampled(apart, asked, seed), [0.025, 0.975])
        each = apart.sum(1)
        found.append({
            "first": first, "second": second, "difference": float(each.sum() / (asked.sum() * runs)),
            "low": float(low), "high": float(high), "p": sign_flip(apart.sum(0)), "seeds": runs,
            "seeds_agree": bool((each > 0).all() or (each < 0).all()), "examples": len(asked),
        })  # fmt: skip
    for line, corrected in zip(found, holm([line["p"] for line in found]), strict=True):
        line["p_holm"] = corrected
    return found


def _resampled(hits: Counts, asked: Counts, seed: int) -> NDArray[np.float64]:
    """(draws,) shares: runs and examples drawn with replacement, apart from each other."""
    rng = np.random.default_rng(seed)
    runs, n = hits.shape
    shares = np.empty(_DRAWS)
    for at in range(_DRAWS):
        drawn = rng.integers(0, n, n)
        rows = rng.integers(0, runs, runs)
        shares[at] = hits[rows].sum(0)[drawn].sum() / (asked[drawn].sum() * runs)
    return shares
