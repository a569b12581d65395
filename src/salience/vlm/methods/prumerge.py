"""PruMerge: tokens with outlying [CLS] attention, each merged with the tokens that are most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from salience.core.types import Merge, Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


@dataclass(frozen=True, kw_only=True, eq=False)
class PruMerge(Method):
    """Keep the tokens with [CLS] attention above Q3 + 1.5 (Q3 - Q1); to each is added the attention-weighted sum of the
    `neighbours` tokens whose keys are most like its own.

    The method finds its own count: a budget is the most that stays (the strongest), often fewer do, at least one.
    keep = 1 keeps all tokens as they are.

    Source: LLaVA-PruMerge, arXiv:2403.15388, section 3 and algorithm 1.  Deviation: keys and attention of the layer
    whose output the model uses, attention as the mean over heads (the paper's code: the last layer, all heads as one);
    raster order; no extra token for all that is dropped.
    """

    name = "prumerge"
    needs = frozenset({"cls_attention", "keys"})
    scored = False
    neighbours: int = 32

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {self.neighbours!r}.")

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        return [self._one(ctx, budget.count(ctx.features.shape[0])) for ctx in contexts]

    def kept(self, outliers: Tensor, n: int, k: int) -> Tensor:
        """(k' <= k,) rising, of the outliers, strongest first."""
        return outliers[:k].sort().values

    def _one(self, ctx: TokenContext, k: int) -> Selection:
        assert ctx.cls_attention is not None  # checked by select_all
        assert ctx.keys is not None
        attention, n = ctx.cls_attention.cpu(), len(ctx.cls_attention)
        low, high = torch.quantile(attention, torch.tensor([0.25, 0.75])).tolist()
        count = max(1, int((attention > high + 1.5 * (high - low)).sum()))
        kept = self.kept(attention.sort(descending=True, stable=True).indices[:count], n, k)
        unit = normalize(ctx.keys.flatten(1).cpu(), dim=-1)  # (n, heads * d_head)
        alike = (unit[kept] @ unit.T).scatter(1, kept[:, None], float("-inf"))  # (k', n), no token is its own neighbour
        near = alike.topk(min(self.neighbours, n - 1), dim=1).indices  # (k', neighbours)
        source = torch.cat([kept[:, None], near], dim=1)  # (k', 1 + neighbours)
        weight = attention[source]
        weight[:, 0] = 1
        target = torch.arange(len(kept))[:, None].expand_as(source)
        merge = Merge(target=target.flatten(), source=source.flatten(), weight=weight.flatten())
        return Selection(kept=kept, scores=attention, merge=merge)


class PruMergePlus(PruMerge):
    """PruMerge with evenly spaced tokens added, in raster order, up to the budget: exactly k are kept and merged into.

    Source: LLaVA-PruMerge, arXiv:2403.15388, section 3.3.  Deviation: PruMerge's, and the spacing fills the budget,
    where the paper's follows from the share of outliers.
    """

    name = "prumerge+"

    def kept(self, outliers: Tensor, n: int, k: int) -> Tensor:
        """(k,) rising: the outliers, then every (n - outliers) / missing-th of the others."""
        chosen = outliers[:k]
        rest = torch.ones(n, dtype=torch.bool).index_fill(0, chosen, False).nonzero()[:, 0]
        missing = k - len(chosen)
        places = ((torch.arange(missing) + 0.5) * (len(rest) / max(1, missing))).long()
        return torch.cat([chosen, rest[places]]).sort().values
