"""The probe: what a linear classifier can still read off the tokens that were kept.

It sees the mean of a picture's kept tokens after the projector and says which (digit, colour) pairs are in the picture.
Its accuracy: of the m pairs in a picture, the share that is among the m pairs it rates highest. (Counting right
yes-or-no verdicts instead would start at 92 % by saying "none is there", 74 of 80 pairs being absent.) The majority
line is the same share for always naming the commonest pairs of the training pictures.

Ridge regression onto 0/1 labels, features standardised on the training pictures, strength by leave-one-out error on
the same pictures: closed form, so that retraining it for every method and ratio costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.data.scene_pictures import COLOURS, Item

PAIRS = 10 * len(COLOURS)
_STRENGTHS = tuple(10.0**power for power in range(-4, 4))


def pair_labels(items: Sequence[Sequence[Item]]) -> Tensor:
    """(P, 80) float64 of 0 and 1: which (digit, colour) pairs each picture holds."""
    labels = torch.zeros(len(items), PAIRS, dtype=torch.float64)
    for picture, found in enumerate(items):
        for item in found:
            labels[picture, item.digit * len(COLOURS) + COLOURS.index(item.colour)] = 1.0
    return labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A fitted linear classifier: ratings = (x - mean) / spread @ weight + bias, x (P, d) -> (P, 80)."""

    mean: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def rate(self, pooled: Tensor) -> Tensor:
        """(P, 80) ratings of mean-pooled tokens (P, d)."""
        rated: Tensor = (pooled.double() - self.mean) / self.spread @ self.weight + self.bias
        return rated


def fit_probe(pooled: Tensor, labels: Tensor) -> Probe:
    """Fit on training pictures: pooled (P, d), labels (P, 80)."""
    x = pooled.double()
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-9)
    bias = labels.mean(0)
    u, s, vt = torch.linalg.svd((x - mean) / spread, full_matrices=False)  # (P, r), (r,), (r, d)
    target = u.T @ (labels - bias)  # (r, 80)
    best: tuple[float, Tensor] | None = None
    for strength in _STRENGTHS:
        shrink = s**2 / (s**2 + strength * len(x))  # (r,)
        leverage = (u**2 * shrink).sum(1) + 1 / len(x)  # (P,), the mean's own share included
        left_out = (labels - bias - u @ (shrink[:, None] * target)) / (1 - leverage).clamp_min(1e-9)[:, None]
        error = float((left_out**2).mean())
        if best is None or error < best[0]:
            best = error, vt.T @ ((shrink / s.clamp_min(1e-12))[:, None] * target)
    assert best is not None
    return Probe(mean=mean, spread=spread, weight=best[1], bias=bias)


def named_share(ratings: Tensor, labels: Tensor) -> float:
    """Of the m pairs in a picture, the share among the m rated highest; mean over pictures. Both (P, 80)."""
    shares = []
    for rated, there in zip(ratings, labels, strict=True):
        m = int(there.sum())
        shares.append(float(there[rated.sort(descending=True, stable=True).indices[:m]].sum()) / m)
    return sum(shares) / len(shares)


def majority_line(train_labels: Tensor, test_labels: Tensor) -> float:
    """The accuracy of always naming the pairs that are commonest in the training pictures."""
    return named_share(train_labels.mean(0).expand_as(test_labels), test_labels)
