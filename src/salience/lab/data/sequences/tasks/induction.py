"""`induction`: the token that followed the special token before.

Random tokens 0..vocabulary-2. The special token vocabulary-1 stands at one random place, followed by the answer, and
again at the last step, the only one with a target. Test splits have the training length and twice, four times, ... of
it, up to `longest`: a model that learnt to search does not depend on the length.

In training the special token stands at up to `times` places besides the last, each followed by the same answer, which
is a target from the second place on. With one target among 256 steps every model stays at chance for thousands of
steps; with several it learns within hundreds.

Source: Olsson et al., arXiv:2209.11895 (induction heads); Gu and Dao, arXiv:2312.00752, section 4.1.2 (vocabulary 16,
trained at 256). Deviations: the places in training; the first place is drawn evenly over all steps but the last two.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from salience.lab.data.sequences.draws import Indices, integers, uniform
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import IGNORE, Generated
from salience.lab.data.sequences.task_options import Options, between

OPTIONS: Options = {
    "length": (256, 4, 1 << 20),
    "longest": (16_384, 4, 1 << 20),
    "vocabulary": (16, 4, 1 << 16),
    "epoch": (6_400, 1, 1 << 30),
    "times": (7, 1, 1 << 19),
    "test": (1_000, 1, 1 << 20),
}

Chosen = NDArray[np.bool_]

_PLACES, _COUNTS = 1001, 1002  # streams of draws beside those of the lengths
_LONG_TEST = 200  # sequences of each greater length: .99 of them is 198


def build(
    task: str, *, seed: int, length: int, longest: int, vocabulary: int, epoch: int, times: int, test: int
) -> SequenceTask:
    """Make the task."""
    between(task, "longest", longest, length, 1 << 20)
    between(task, "times", times, 1, length // 2 - 1)

    def split(stream: int, size: int, steps: int, *, endless: bool = False) -> Generated:
        def make(index: Indices) -> tuple[Tensor, Tensor]:
            tokens = integers(seed, 2 * stream, index, steps, vocabulary - 1)
            if endless and times > 1:
                # 1 to `times` pairs of steps; every number and every set are equally likely.
                ranks = uniform(seed, _PLACES, index, (steps - 2) // 2).argsort(axis=1).argsort(axis=1)
                pairs = ranks < 1 + integers(seed, _COUNTS, index, 1, times)
                return repeated(tokens, pairs, vocabulary)
            first = integers(seed, 2 * stream + 1, index, 1, steps - 2)
            return sequences(tokens, first[:, 0], vocabulary)

        return Generated(make=make, size=size, length=steps, endless=endless)

    lengths = [length << k for k in range(1, 21) if length << k <= longest]
    return SequenceTask(
        kind="tag", n_classes=vocabulary, vocabulary=vocabulary,
        train=split(0, epoch, length, endless=True), val=split(1, test, length), test=split(2, test, length),
        longer={steps: split(steps, _LONG_TEST, steps) for steps in lengths},
        metric="accuracy of the last step", guess=1 / (vocabulary - 1),
        source=f"made from a seed: {vocabulary - 1} tokens and a special one; training never repeats an example",
        licence="none needed: made data", credit="Olsson et al. 2022; Gu and Dao 2023",
    )  # fmt: skip


def sequences(tokens: Indices, first: Indices, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (b, L). tokens: (b, L) ordinary ones   first: (b,) special place, at most L - 3"""
    inputs, at = torch.from_numpy(tokens), torch.from_numpy(first)[:, None]
    inputs.scatter_(1, at, vocabulary - 1)
    inputs[:, -1] = vocabulary - 1
    targets = torch.full_like(inputs, IGNORE)
    targets[:, -1:] = inputs.gather(1, at + 1)
    return inputs, targets


def repeated(tokens: Indices, pairs: Chosen, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (b, L).

    tokens: (b, L) ordinary ones   pairs: (b, (L - 2) // 2), True where steps 2 p and 2 p + 1 are the special token and
    the answer; the token behind the first special one is the answer
    """
    inputs, rows = torch.from_numpy(tokens), np.arange(len(tokens))
    answers = torch.from_numpy(tokens[rows, 2 * pairs.argmax(axis=1) + 1])[:, None]
    special = torch.zeros_like(inputs, dtype=torch.bool)
    special[:, : 2 * pairs.shape[1] : 2] = torch.from_numpy(pairs)
    inputs = torch.where(special.roll(1, dims=1), answers, inputs)
    special[:, -1] = True
    inputs = inputs.masked_fill(special, vocabulary - 1)
    asked = special & (special.cumsum(dim=1) > 1)
    return inputs, torch.where(asked, answers, IGNORE)
