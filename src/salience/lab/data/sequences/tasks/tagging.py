"""`digit-tagging`: the digit of each column in a strip of five handwritten digits.

A strip is 140 columns, each a patch of 28 pixels from top to bottom. The label of a column is the digit (0 to 9) in
whose picture it lies, blank margins included. A single column tells little. The first columns of a digit are blank, so
a model that reads one way must guess there, about one column in four.

The digits are the 5,000 of `readers.mnist`, drawn evenly; each split has digits of its own. Training strips never
repeat. Pixels are (x / 255 - mean) / deviation with two constants of the training digits.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salience.lab.data.readers.mnist import CREDIT, LICENCE, split_digits
from salience.lab.data.sequences.draws import Indices, integers
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import Generated
from salience.lab.data.sequences.task_options import Options

#: digits a strip, strips in an epoch, strips of the test
OPTIONS: Options = {"digits": (5, 1, 1 << 10), "epoch": (2_000, 1, 1 << 30), "test": (500, 1, 1 << 20)}


def build(task: str, *, seed: int, digits: int, epoch: int, test: int) -> SequenceTask:
    """Make the task."""
    splits = {
        split: _split(split, stream, seed, digits, size)
        for stream, (split, size) in enumerate((("train", epoch), ("val", test), ("test", test)))
    }
    return SequenceTask(
        kind="tag",
        n_classes=10,
        d_input=28,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        metric="accuracy per column",
        source=f"strips of {digits} MNIST digits made from a seed; each split has digits of its own, "
        "a writer may be in two",
        licence=LICENCE,
        credit=CREDIT,
        classes=tuple("0123456789"),
    )


def _split(split: str, stream: int, seed: int, count: int, size: int) -> Generated:
    pictures, known = split_digits()[split], split_digits()["train"].images
    mean, deviation = float(np.mean(known) / 255), float(np.std(known) / 255)

    def make(index: Indices) -> tuple[Tensor, Tensor]:
        chosen = integers(seed, stream, index, count, len(pictures.labels))  # (b, digits)
        pixels = torch.from_numpy(strips(pictures.images[chosen]))
        targets = torch.from_numpy(pictures.labels[chosen]).repeat_interleave(28, dim=1)
        return (pixels.float() / 255 - mean) / deviation, targets

    return Generated(make=make, size=size, length=28 * count, endless=split == "train")


def strips(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the columns from left to right, (b, 28 * digits, 28), of images (b, digits, 28, 28)."""
    rows, count = images.shape[:2]
    return np.ascontiguousarray(images.transpose(0, 1, 3, 2)).reshape(rows, count * 28, 28)
