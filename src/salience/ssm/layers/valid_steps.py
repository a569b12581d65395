"""Rows without their absent steps: what a convolution needs, to which a step is a place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ValidSteps:
    """Where each row's valid steps are, in scan order.

    places: (B, L), first the valid steps' positions, then the others'   ranks: (B, L), its inverse
    counts: (B,), how many are valid
    """

    mask: Tensor
    places: Tensor
    ranks: Tensor
    counts: Tensor

    @staticmethod
    def of(mask: Tensor, reverse: bool) -> ValidSteps:
        """From (B, L) bool; under `reverse` the last valid step is the first."""
        order = (~(mask.flip(1) if reverse else mask)).to(torch.uint8).argsort(dim=1, stable=True)
        places = mask.shape[1] - 1 - order if reverse else order
        return ValidSteps(mask=mask, places=places, ranks=places.argsort(dim=1), counts=mask.sum(1))

    def together(self, x: Tensor) -> Tensor:
        """(B, L, D): the valid steps at the front, zeros behind, whatever the absent ones held."""
        return _take(x.masked_fill(~self.mask[..., None], 0), self.places)

    def at_the_end(self, x: Tensor) -> Tensor:
        """(B, L, D), as `together` gave it: zeros in front instead."""
        at = torch.arange(x.shape[1], device=x.device) - (x.shape[1] - self.counts)[:, None]
        return _take(x, at % x.shape[1])

    def apart(self, y: Tensor) -> Tensor:
        """The reverse of `together`; zeros at absent steps."""
        return _take(y, self.ranks).masked_fill(~self.mask[..., None], 0)


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Row by row; `gather` would go element by element."""
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (first + places).flatten()).reshape(x.shape)
