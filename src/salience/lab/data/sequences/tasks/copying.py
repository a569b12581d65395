"""`copying` and `selective-copying`: repeat the data tokens at the end of the sequence.

Of the first `length` steps `tokens` hold a data token (0..vocabulary-3) and the others a blank (vocabulary-2): the
first steps in `copying`, random ones in `selective-copying`. Then come `tokens` markers (vocabulary-1); the target of
the m-th is the m-th data token. No other step has a target. A linear time-invariant model can solve `copying`, whose
delay is constant; random places need a selection by the input.

Source: Arjovsky, Shah and Bengio, arXiv:1511.06464 (copying); Gu and Dao, arXiv:2312.00752, section 4.1.1 (selective:
`tokens=16,length=4096,vocabulary=16`). Generated data without a licence.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from salience.lab.data.sequences.draws import Indices, integers, places
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import IGNORE, Generated
from salience.lab.data.sequences.task_options import Options, between

#: steps before the markers, data tokens, number of ids, examples in an epoch and in the test
OPTIONS: Options = {
    "length": (120, 1, 1 << 20),
    "tokens": (8, 1, 1 << 20),
    "vocabulary": (14, 4, 1 << 16),
    "epoch": (12_800, 1, 1 << 30),
    "test": (1_000, 1, 1 << 20),
}


def build(task: str, *, seed: int, length: int, tokens: int, vocabulary: int, epoch: int, test: int) -> SequenceTask:
    """Make the task "copying" or "selective-copying"."""
    between(task, "tokens", tokens, 1, length)

    def split(stream: int, size: int, *, endless: bool = False) -> Generated:
        def make(index: Indices) -> tuple[Tensor, Tensor]:
            where = None if task == "copying" else places(seed, 2 * stream, index, tokens, length)
            data = integers(seed, 2 * stream + 1, index, tokens, vocabulary - 2)
            return sequences(data, where, length, vocabulary)

        return Generated(make=make, size=size, length=length + tokens, endless=endless)

    return SequenceTask(
        kind="tag", n_classes=vocabulary, vocabulary=vocabulary,
        train=split(0, epoch, endless=True), val=split(1, test), test=split(2, test),
        metric="accuracy per copied token", guess=1 / (vocabulary - 2),
        source=f"made from a seed: {tokens} of {vocabulary - 2} tokens among {length} steps, then {tokens} markers; "
        "training never repeats an example",
        licence="none needed: made data", credit="Arjovsky et al. 2016 (copying); Gu and Dao 2023 (selective copying)",
    )  # fmt: skip


def sequences(data: Indices, where: Indices | None, length: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, both (b, length + m) int64.

    data: (b, m) tokens   where: (b, m) their places, rising, or None for the first m
    """
    rows, count = data.shape
    inputs = np.full((rows, length + count), vocabulary - 2, dtype=np.int64)
    inputs[:, length:] = vocabulary - 1
    at = np.broadcast_to(np.arange(count), data.shape) if where is None else where
    np.put_along_axis(inputs, at, data, axis=1)
    targets = np.full_like(inputs, IGNORE)
    targets[:, length:] = data
    return torch.from_numpy(inputs), torch.from_numpy(targets)
