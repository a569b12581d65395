"""Accuracy of sequence models: intervals, and paired tests between models on the same test examples.

The targets of one example depend on each other, so examples are resampled and paired, not targets. Letters: R runs
(seeds) of a model, n test examples. `right` counts an example's correct targets, `asked` all its targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from salience.core.result_tables import ModelDifference

Counts = NDArray[np.int64]

TEST = (
    "exact paired sign-flip test over test examples, seeds pooled (with one seed and one target an example: "
    "McNemar's), Holm's correction over all pairs"
)
INTERVAL = "95% bootstrap over test examples and seeds together"
_DRAWS = 2000


def accuracy_interval(right: Counts, asked: Counts, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of sum(right) / sum(asked), over examples and runs. right: (R, n)   asked: (n,)

    Runs and examples are drawn with replacement, independently.
    """
    rng = np.random.default_rng(seed)
    runs, n = right.shape
    shares = np.empty(_DRAWS)
    for at in range(_DRAWS):
        drawn = rng.integers(0, n, n)
        rows = rng.integers(0, runs, runs)
        shares[at] = right[rows].sum(0)[drawn].sum() / (asked[drawn].sum() * runs)
    low, high = np.quantile(shares, [0.025, 0.975])
    return float(low), float(high)


def sign_flip(difference: Counts) -> float:
    """P(|sum of +-d_i| >= |sum of d_i|) where every sign is a fair coin. Exact, by the sum's characteristic function.

    difference: (n,) whole numbers. The result is at least 1e-12, about the rounding error.
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
    """Holm's step-down correction, in the given order."""
    given = np.asarray(chances)
    order = given.argsort(kind="stable")
    corrected = np.empty(len(given))
    corrected[order] = np.maximum.accumulate(np.arange(len(given), 0, -1) * given[order]).clip(max=1)
    return [float(chance) for chance in corrected]


def compare_pairs(right: Mapping[str, Counts], asked: Counts, *, seed: int = 0) -> tuple[ModelDifference, ...]:
    """Return the difference of every two models.

    right: model -> (R, n). Two models are compared on as many runs as both have.
    """
    found: list[ModelDifference] = []
    for first, second in combinations(right, 2):
        runs = min(len(right[first]), len(right[second]))
        apart = right[first][:runs] - right[second][:runs]  # (runs, n)
        low, high = accuracy_interval(apart, asked, seed=seed)
        each = apart.sum(1)
        p = sign_flip(apart.sum(0))
        found.append(
            ModelDifference(
                first=first, second=second, difference=float(each.sum() / (asked.sum() * runs)), low=low,
                high=high, p=p, seeds=runs, seeds_agree=bool((each > 0).all() or (each < 0).all()),
                examples=len(asked), p_holm=p,
            )
        )  # fmt: skip
    corrected = holm([float(line.p or 0.0) for line in found])
    return tuple(replace(line, p_holm=p) for line, p in zip(found, corrected, strict=True))
