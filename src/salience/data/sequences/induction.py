"""`induction`: what came after the special token the last time it was seen?

Random tokens 0..vocabulary-2; the special token vocabulary-1 stands at one random place, with one token after it that
is the answer, and again at the last step, the only one with a target. Trained at one length, tested at that and at
twice, four times, ... the length up to `longest`: a model that has learnt to look it up doesn't mind.

Source: Olsson et al., arXiv:2209.11895 (induction heads); Gu and Dao, arXiv:2312.00752, section 4.1.2 (vocabulary 16,
trained at 256). Deviation: the special token's first place is drawn evenly over all steps but the last two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.data.sequences.draws import Indices, integers
from salience.data.sequences.options import between
from salience.data.sequences.splits import IGNORE, Made
from salience.data.sequences.task import SequenceTask

OPTIONS: dict[str, Any] = {"length": 256, "longest": 16_384, "vocabulary": 16, "epoch": 19_200, "test": 1_000}

_LONG_TEST = 200  # sequences of each greater length: .99 of them is 198


def build(*, seed: int, name: str, length: int, longest: int, vocabulary: int, epoch: int, test: int) -> SequenceTask:
    """See the module."""
    between("induction", "length", length, 4, 1 << 20)
    between("induction", "longest", longest, length, 1 << 20)
    between("induction", "vocabulary", vocabulary, 4, 1 << 16)
    between("induction", "epoch", epoch, 1, 1 << 30)
    between("induction", "test", test, 1, 1 << 20)

    def split(stream: int, size: int, steps: int, *, endless: bool = False) -> Made:
        def make(index: Indices) -> tuple[Tensor, Tensor]:
            tokens = integers(seed, 2 * stream, index, steps, vocabulary - 1)
            first = integers(seed, 2 * stream + 1, index, 1, steps - 2)
            return sequences(tokens, first[:, 0], vocabulary)

        return Made(make=make, size=size, length=steps, endless=endless)

    lengths = [length << k for k in range(1, 21) if length << k <= longest]
    guess = 1 / (vocabulary - 1)
    return SequenceTask(
        name=name, kind="tag", input_kind="token", n_classes=vocabulary, vocabulary=vocabulary, length=length,
        train=split(0, epoch, length, endless=True), val=split(1, test, length), test=split(2, test, length),
        longer={steps: split(steps, _LONG_TEST, steps) for steps in lengths},
        metric="accuracy of the last step", majority=guess, chance=guess,
        source=f"made from a seed: {vocabulary - 1} tokens and a special one; training never repeats an example",
        licence="none needed: made data", credit="Olsson et al. 2022; Gu and Dao 2023",
    )  # fmt: skip


def sequences(tokens: Indices, first: Indices, vocabulary: int) -> tuple[Tensor, Tensor]:
    """tokens: (b, L) ordinary ones   first: (b,) the special token's place, at most L - 3."""
    inputs, at = torch.from_numpy(tokens), torch.from_numpy(first)[:, None]
    inputs.scatter_(1, at, vocabulary - 1)
    inputs[:, -1] = vocabulary - 1
    targets = torch.full_like(inputs, IGNORE)
    targets[:, -1:] = inputs.gather(1, at + 1)
    return inputs, targets
