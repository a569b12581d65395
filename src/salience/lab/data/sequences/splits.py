"""Splits: numbered examples, stored or generated, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from salience.lab.data.sequences.draws import order_of

IGNORE = -100  # target that torch's cross_entropy ignores

_ELSEWHERE = 1 << 40  # an index that training never reaches


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Examples of one step. inputs: tokens (b, L) int64, or (b, L, d_input) float32   targets: (b,) or (b, L) int64
    mask: (b, L) bool, True for valid steps (padding is on the right); None where all are valid"""

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None = None


class Split:
    """Examples 0..size-1, or endlessly many, of which `size` make an epoch.

    length: steps of the longest example   endless: whether indices from `size` on are new examples
    """

    size: int
    length: int
    endless: bool = False

    def __len__(self) -> int:
        return self.size

    def batch(self, index: Tensor) -> Batch:
        """Return the examples with these numbers, index (b,) int64. A number always gives the same example."""
        raise NotImplementedError

    def shuffled(self, seed: int) -> Split:
        """Return the split with the targets of another example for each example."""
        raise NotImplementedError

    def order(self, epoch: int, batch: int, seed: int) -> list[Tensor]:
        """Return the index tensors of one training epoch, with every example once; the last batch may be smaller.

        Endless splits give the next `size` examples, the same for every seed; stored ones a permutation per epoch.
        """
        if self.endless:
            numbers = torch.arange(epoch * self.size, (epoch + 1) * self.size)
        else:
            numbers = torch.from_numpy(order_of(seed, epoch, self.size))
        return list(torch.split(numbers, batch))

    def batches(self, batch: int, limit: int | None = None) -> Iterator[Batch]:
        """Iterate over the first `limit` examples in order, for evaluation."""
        for index in torch.split(torch.arange(min(self.size, limit or self.size)), batch):
            yield self.batch(index)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored(Split):
    """Examples in memory, in a compact form. inputs: (n, L, ...)   targets: whole numbers (n,) or (n, L)
    lengths: (n,) int64 where they vary, behind which a row is padding   prepare: from stored rows to batch inputs"""

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
    prepare: Callable[[Tensor], Tensor] | None = None
    length: int

    @staticmethod
    def padded(
        rows: Sequence[Tensor], targets: Sequence[int], prepare: Callable[[Tensor], Tensor] | None = None
    ) -> Stored:
        """Store rows of any length, (L, ...), padded on the right with 0."""
        lengths = torch.tensor([len(row) for row in rows])
        inputs = pad_sequence(list(rows), batch_first=True)
        return Stored(
            inputs=inputs, targets=torch.tensor(targets), lengths=lengths, prepare=prepare, length=inputs.shape[1]
        )

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.targets)

    def batch(self, index: Tensor) -> Batch:
        inputs, targets, mask = self.inputs[index], self.targets[index].long(), None
        if self.lengths is not None:
            lengths = self.lengths[index]
            longest = int(lengths.max())
            inputs = inputs[:, :longest]
            mask = torch.arange(longest) < lengths[:, None]  # (b, L)
            mask = None if bool(mask.all()) else mask
        return Batch(inputs=inputs if self.prepare is None else self.prepare(inputs), targets=targets, mask=mask)

    def shuffled(self, seed: int) -> Stored:
        return replace(self, targets=self.targets[torch.from_numpy(order_of(seed, _ELSEWHERE, self.size))])

    def joined(self, other: Stored) -> Stored:
        """Return these examples, followed by those of another split of the task."""
        width = max(self.inputs.shape[1], other.inputs.shape[1])
        parts, lengths = [], []
        for part in (self, other):
            missing = (0, 0) * (part.inputs.ndim - 2) + (0, width - part.inputs.shape[1])
            parts.append(pad(part.inputs, missing))
            own = part.lengths
            lengths.append(torch.full((part.size,), part.inputs.shape[1]) if own is None else own)
        inputs, targets = torch.cat(parts), torch.cat([self.targets, other.targets])
        length = max(self.length, other.length)
        return replace(self, inputs=inputs, targets=targets, lengths=torch.cat(lengths), length=length)


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated(Split):
    """Examples that a function makes from their numbers (b,) int64: inputs and targets."""

    make: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]
    size: int
    length: int
    endless: bool = False

    def batch(self, index: Tensor) -> Batch:
        inputs, targets = self.make(index.numpy())
        return Batch(inputs=inputs, targets=targets)

    def shuffled(self, seed: int) -> Generated:
        """See `Split`. seed: without effect; the targets are those of examples that training never reaches"""

        def make(index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            inputs, targets = self.make(index)
            others = _everywhere(self.make(index + _ELSEWHERE)[1])
            return inputs, others.masked_fill(targets == IGNORE, IGNORE)

        return replace(self, make=make)


def _everywhere(targets: Tensor) -> Tensor:
    """Fill steps without a target by repeating the row's own targets (b, L); examples may have them at other steps."""
    steps, filled = torch.arange(targets.shape[1]), []
    for row in targets:
        own = row[row != IGNORE]
        filled.append(torch.where(row == IGNORE, own[steps % len(own)], row) if len(own) else row)
    return torch.stack(filled)
