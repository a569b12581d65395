"""DivPrune: tokens that differ from each other as much as possible, whatever they show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from salience.core.types import Selection, TokenContext
from salience.ops.farthest_first import farthest_first
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


class DivPrune(Method):
    """Keep tokens by max-min diversity: first the one whose nearest neighbour is farthest, then always the one farthest
    from those chosen; distance is 1 - cosine, after the projector.

    Source: DivPrune, arXiv:2503.02175, equations 5 and 6 (the greedy solution of its max-min problem).  Deviation:
    distances are float32 in any model, chosen tokens can't be chosen again, and what is kept stays in raster order.
    """

    name = "divprune"
    needs = frozenset({"projected"})
    scored = False

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        tokens = torch.stack([ctx.projected for ctx in contexts if ctx.projected is not None])
        chosen = farthest_first(unlike(tokens), budget.count(tokens.shape[1])).cpu()  # one kernel for all pictures
        return [Selection(kept=kept) for kept in chosen.sort(dim=1).values]


def unlike(tokens: Tensor) -> Tensor:
    """(pictures, n, d) -> (pictures, n, n) float32: 1 - cosine of each pair of tokens."""
    unit = normalize(tokens.float(), dim=-1)
    return 1 - unit @ unit.transpose(1, 2)
