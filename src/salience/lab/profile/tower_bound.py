"""The budget below which the vision tower dominates, so that further pruning saves little."""

from __future__ import annotations

from collections.abc import Sequence

from salience.lab.profile.counted_stages import CountedModel


def vision_dominates_at(counted: CountedModel) -> int:
    """The most tokens of a picture whose work after the tower is at most the tower's own; 0 if one token has more.

    With this number or fewer, pruning all other tokens would save less than the tower costs. The language model's work
    is quadratic in the number of tokens, so three counts determine all: those of the rows, if there are three.
    """
    n = counted.n
    (x, y), *others = ((kept, counted.language(kept).prefill.flops) for kept in _three(n, counted.counts))
    slopes = [((other - y) / (kept - x), kept) for kept, other in others]  # y + slope (kept - x) through each
    (first, middle), (second, last) = slopes[0], slopes[-1]
    b = (second - first) / (last - middle) if last != middle else 0.0  # text + a k + b k^2 through all
    a = first - b * (x + middle) + counted.projector.flops / n
    kept = 0
    while kept < n and a * (kept + 1) + b * (kept + 1) ** 2 <= counted.vision.flops:
        kept += 1
    return kept


def _three(n: int, known: Sequence[int]) -> list[int]:
    """Three counts of tokens, known ones first; fewer if there are no three from 0 to n."""
    return list(dict.fromkeys([*known, n, 0, max(1, n // 2)]))[:3]
