"""VisPruner: a share of the tokens by [CLS] attention, the rest by their difference from other tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget

_DROPPED_PER_ROUND = 8  # as published


@dataclass(frozen=True, kw_only=True, eq=False)
class VisPruner(Method):
    """Keep `important` of the budget by [CLS] attention; of the rest, repeatedly drop the tokens most like another.

    A round sorts the rest, strongest first, into even and odd places, and drops the (at most eight) even ones that are
    most similar to any odd one, until as many are left as the budget has.

    Source: VisPruner, arXiv:2412.01818 (its second version), section 3.  Deviation: none known.  Raises: ValueError
    when `important` is not in [0, 1].
    """

    name = "vispruner"
    needs = frozenset({"cls_attention"})
    scored = False
    important: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.important <= 1:
            raise ValueError(f"important must be a share from 0 to 1, not {self.important!r}.")

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        attention = torch.stack([ctx.cls_attention for ctx in contexts if ctx.cls_attention is not None])
        unit = normalize(torch.stack([ctx.features for ctx in contexts]).float(), dim=-1)  # (pictures, n, d)
        k = budget.count(unit.shape[1])
        first = math.floor(self.important * k + 0.5)
        order = attention.sort(dim=1, descending=True, stable=True).indices  # (pictures, n)
        diverse = least_alike(unit, order[:, first:], k - first)
        kept = torch.cat([order[:, :first], diverse], dim=1).sort(dim=1).values.cpu()
        return [Selection(kept=row, scores=scores) for row, scores in zip(kept, attention.cpu(), strict=True)]


def least_alike(unit: Tensor, rest: Tensor, count: int) -> Tensor:
    """(pictures, n, d) of unit length and indices (pictures, m) -> the (pictures, count) of them that remain."""
    if count == 0:
        return rest[:, :0]
    while rest.shape[1] > count:
        even, odd = rest[:, ::2], rest[:, 1::2]
        drop = min(_DROPPED_PER_ROUND, rest.shape[1] - count, even.shape[1])
        a, b = (unit.gather(1, x[..., None].expand(-1, -1, unit.shape[-1])) for x in (even, odd))
        alike = (a @ b.transpose(1, 2)).amax(2)  # (pictures, even places)
        stay = alike.sort(dim=1, descending=True, stable=True).indices[:, drop:]
        rest = torch.cat([even.gather(1, stay), odd], dim=1)
    return rest
