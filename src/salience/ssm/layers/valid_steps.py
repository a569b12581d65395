"""Orders of steps for layers that read from the first valid step to the last."""

from __future__ import annotations

import torch
from torch import Tensor


class ScanOrder:
    """Each row's valid steps in front, in scan order; under `reverse` the last one is the first.

    mask: (B, L) bool, None where all steps are valid   counts: (B,), valid steps of each row, None without a mask
    """

    def __init__(self, mask: Tensor | None, reverse: bool) -> None:
        self.mask, self.reverse, self.counts = mask, reverse, None if mask is None else mask.sum(1)
        if mask is not None:
            order = (~(mask.flip(1) if reverse else mask)).to(torch.uint8).argsort(dim=1, stable=True)
            self._places = mask.shape[1] - 1 - order if reverse else order  # (B, L), valid steps first
            self._ranks = self._places.argsort(dim=1)  # its inverse

    def apply(self, x: Tensor) -> Tensor:
        """x (B, L, D) in scan order; zeros behind the valid steps."""
        if self.mask is None:
            return x.flip(1) if self.reverse else x
        return _take(x.masked_fill(~self.mask[..., None], 0), self._places)

    def undo(self, y: Tensor) -> Tensor:
        """The reverse of `apply`; zeros at absent steps."""
        if self.mask is None:
            return y.flip(1) if self.reverse else y
        return _take(y, self._ranks).masked_fill(~self.mask[..., None], 0)

    def at_the_end(self, x: Tensor) -> Tensor:
        """x (B, L, D) as `apply` gave it, with the zeros in front instead."""
        if self.counts is None:
            return x
        at = torch.arange(x.shape[1], device=x.device) - (x.shape[1] - self.counts)[:, None]
        return _take(x, at % x.shape[1])


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Rows of x (B, L, D) at places (B, L); `gather` would go element by element."""
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (first + places).flatten()).reshape(x.shape)
