"""Baselines without the input: the commonest answer and a uniform guess."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.lab.data.sequences.splits import IGNORE, Split

_COUNTED = 4096  # examples counted of each split: the standard error of a share is below .008


def counts(split: Split, n_classes: int, limit: int = _COUNTED) -> Tensor:
    """Return how often each class is a target in the first `limit` examples, (n_classes,) int64."""
    found = torch.zeros(n_classes, dtype=torch.int64)
    for batch in split.batches(256, limit):
        targets = batch.targets.flatten()
        found += torch.bincount(targets[targets != IGNORE], minlength=n_classes)
    return found


def majority_and_chance(train: Split, test: Split, n_classes: int) -> tuple[float, float]:
    """Return the test accuracy of the commonest training target, and of a uniform guess among training targets."""
    seen, asked = counts(train, n_classes), counts(test, n_classes)
    return float(asked[int(seen.argmax())] / asked.sum()), 1.0 / int((seen > 0).sum())
