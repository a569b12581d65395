"""Splits: numbered examples, stored or generated, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
    """Examples in memory, in a compact form. inputs: (n, L, ...)   targets: (n,) or (n, L) int64
    lengths: (n,) int64 where they vary, behind which a row is padding   prepare: from stored rows to batch inputs"""

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
    prepare: Callable[[Tensor], Tensor] | None = None
    length: int

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(self.targets)

    def batch(self, index: Tensor) -> Batch:
        inputs, targets, mask = self.inputs[index], self.targets[index], None
        if self.lengths is not None:
            lengths = self.lengths[index]
            longest = int(lengths.max())
            inputs = inputs[:, :longest]
            targets = targets[:, :longest] if targets.ndim > 1 else targets
            mask = torch.arange(longest) < lengths[:, None]  # (b, L)
            mask = None if bool(mask.all()) else mask
        return Batch(inputs=inputs if self.prepare is None else self.prepare(inputs), targets=targets, mask=mask)


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


class Joined(Split):
    """Examples of one finite split, followed by those of another."""

    def __init__(self, first: Split, second: Split) -> None:
        self.first, self.second = first, second
        self.size, self.length = first.size + second.size, max(first.length, second.length)

    def batch(self, index: Tensor) -> Batch:
        late = index >= self.first.size
        if not bool(late.any()):
            return self.first.batch(index)
        if bool(late.all()):
            return self.second.batch(index - self.first.size)
        early = self.first.batch(index[~late])
        return _interleave(early, self.second.batch(index[late] - self.first.size), late)


class Shuffled(Split):
    """Inputs of each example with the targets of another one."""

    def __init__(self, inner: Split, seed: int) -> None:
        self.inner, self.size, self.length, self.endless = inner, inner.size, inner.length, inner.endless
        self._other = None if inner.endless else torch.from_numpy(order_of(seed, _ELSEWHERE, inner.size))

    def batch(self, index: Tensor) -> Batch:
        inner = self.inner.batch(index)
        other = self.inner.batch(index + _ELSEWHERE if self._other is None else self._other[index]).targets
        if other.ndim == 1:
            return Batch(inputs=inner.inputs, targets=other, mask=inner.mask)
        width = inner.targets.shape[1]
        other = _everywhere(_pad(other, width, IGNORE)[:, :width]).masked_fill(inner.targets == IGNORE, IGNORE)
        return Batch(inputs=inner.inputs, targets=other, mask=inner.mask)


def _everywhere(targets: Tensor) -> Tensor:
    """Fill steps without a target by repeating the row's own targets (b, L); examples may have them at other steps."""
    steps = torch.arange(targets.shape[1])
    filled = [own if own.min() != IGNORE else _in_turn(own, steps) for own in targets]
    return torch.stack(filled)


def _in_turn(own: Tensor, steps: Tensor) -> Tensor:
    kept = own[own != IGNORE]
    return torch.where(own == IGNORE, kept[steps % len(kept)], own) if len(kept) else own


def _interleave(early: Batch, later: Batch, late: Tensor) -> Batch:
    """Join two batches; rows where `late` is True come from the second."""
    width = max(early.inputs.shape[1], later.inputs.shape[1])
    whole = torch.ones(1, dtype=torch.bool)
    masks = [
        _pad(part.mask if part.mask is not None else whole.expand(part.inputs.shape[:2]), width, False)
        for part in (early, later)
    ]
    mask = _rows(masks[0], masks[1], late)
    targets = [part.targets if part.targets.ndim == 1 else _pad(part.targets, width, IGNORE) for part in (early, later)]
    return Batch(
        inputs=_rows(_pad(early.inputs, width, 0), _pad(later.inputs, width, 0), late),
        targets=_rows(targets[0], targets[1], late),
        mask=None if bool(mask.all()) else mask,
    )


def _rows(early: Tensor, later: Tensor, late: Tensor) -> Tensor:
    found = early.new_empty((len(late), *early.shape[1:]))
    found[~late], found[late] = early, later
    return found


def _pad(values: Tensor, width: int, fill: float) -> Tensor:
    """(b, L, ...) -> (b, at least width, ...)"""
    missing = width - values.shape[1]
    if missing <= 0:
        return values
    return torch.cat([values, values.new_full((len(values), missing, *values.shape[2:]), fill)], dim=1)
