"""VisionZip: dominant tokens by [CLS] attention; the others are merged into a few contextual tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from salience.core.types import Merge, Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionZip(Method):
    """Keep dominant tokens unchanged; a few others become the mean of the tokens with similar keys.

    `contextual` is the share of such means in a budget of k (published: 10 of 64, 20 of 128, 30 of 192), rounded to a
    whole number, so there is none at k <= 3. Of the M tokens that are not dominant every (M / contextual)-th is a
    target. Each other token is assigned to the target with the most similar key (mean over heads, unit length), and a
    target becomes the mean of itself and the tokens assigned to it. keep = 1 keeps all tokens unchanged.

    Source: VisionZip, arXiv:2412.04467, section 3.2.  Deviation: raster order (the paper puts dominant tokens first);
    [CLS] itself isn't kept; the paper's code adds the others' mean to the target in place of averaging both.
    """

    name = "visionzip"
    needs = frozenset({"cls_attention", "keys"})
    scored = False
    contextual: float = 10 / 64

    def __post_init__(self) -> None:
        if not 0 <= self.contextual <= 1:
            raise ValueError(f"contextual must be a share from 0 to 1, not {self.contextual!r}.")

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        return [self._one(ctx, budget.count(ctx.features.shape[0])) for ctx in contexts]

    def _one(self, ctx: TokenContext, k: int) -> Selection:
        assert ctx.cls_attention is not None  # checked by select_all
        assert ctx.keys is not None
        targets = math.floor(self.contextual * k + 0.5)
        attention = ctx.cls_attention.cpu()
        dominant = attention.sort(descending=True, stable=True).indices[: k - targets]
        rest = torch.ones(len(attention), dtype=torch.bool).index_fill(0, dominant, False).nonzero()[:, 0]  # (M,)
        if targets == 0:
            return Selection(kept=dominant.sort().values, scores=attention)
        target = rest[torch.arange(targets) * (len(rest) // targets)]
        kept = torch.cat([dominant, target]).sort().values
        unit = normalize(ctx.keys.mean(1).cpu(), dim=-1)  # (n, d_head)
        goes = target[(unit[rest] @ unit[target].T).argmax(1)]  # (M,) tokens
        goes = torch.where(torch.isin(rest, target), rest, goes)  # a target goes into itself
        weight = 1 / torch.bincount(goes, minlength=len(attention))[goes].float()
        return Selection(
            kept=kept,
            scores=attention,
            merge=Merge(target=torch.searchsorted(kept, goes), source=rest, weight=weight),
        )
