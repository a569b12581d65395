"""SparseVLM: text tokens about the picture rate its tokens; some of the dropped tokens come back, merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.core.types import Merge, Selection, TokenContext
from salience.vlm.methods.base import require_finite
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import StagedMethod


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseVLM(StagedMethod):
    """At each of `depths`, fractions of the layers, keep the tokens to which the raters paid most attention, mean over
    raters and heads. Of the dropped tokens the best share `recycled` is clustered into its share `merged` and put back.

    Raters are text tokens after a picture. A text token's relevance is the mean, over the picture's tokens, of the
    softmax over the text of token times text; raters have at least the mean relevance. Of n tokens a stage drops
    (1 - share) (n - rank): rank is that of the raters' attention, share would meet the budget in equal steps. The last
    stage drops down to the budget, recycled tokens included. A recycled token has the place of its cluster's centre.
    `InLLMMethod` says what `keep` means.

    Source: SparseVLM, arXiv:2410.04417, sections 3.2 to 3.4; the depths are layers 2, 6 and 15 of 32 of its code.
    Deviation: the last stage meets the budget (the paper's count follows from ranks and a factor alone); a cluster is
    its members' mean, as in the paper's code (its text has the sum); recycled tokens keep raster order and original
    positions (there they follow the others and gaps are closed); text before a picture, which cannot see it, is no
    rater; without text after it, the prompt's last token is the rater.
    """

    name = "sparsevlm"
    scored = False
    rows = "text"
    depths: tuple[float, ...] = (2 / 32, 6 / 32, 15 / 32)
    recycled: float = 0.3
    merged: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("recycled", "merged"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share from 0 to 1, not {getattr(self, name)!r}.")

    def raters(self, ctx: TokenContext) -> Tensor:
        """(t,) bool: the text tokens that are raters."""
        assert ctx.projected is not None  # set by the stage
        assert ctx.text is not None
        relevance = (ctx.projected.float() @ ctx.text.float().T).softmax(1).mean(0)  # (n, t) -> (t,)
        return relevance >= relevance.mean() * (1 - 1e-6)  # the mean of equal numbers may be rounded up

    def stay(self, ctx: TokenContext, budget: Budget, *, entered: int, stage: int, stages: int) -> Selection:
        assert ctx.text_attention is not None  # set by the stage
        for name in ("features", "projected", "text", "text_attention"):
            require_finite(getattr(ctx, name), self.name, f"{name.replace('_', ' ')} values")
        n, last = ctx.features.shape[0], budget.count(entered)
        ratings = ctx.text_attention[self.raters(ctx)]  # (raters, n)
        count = last
        if stage < stages - 1:
            share = (last / entered) ** (1 / stages)
            rank = int(torch.linalg.matrix_rank(ratings))
            count = max(last, math.floor(n - (1 - share) * (n - rank) + 0.5))
        return self._recycle(ctx.features, ratings.mean(0), min(count, n))

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        raise NotImplementedError("each stage has its own count, see `stay`")

    def _recycle(self, hidden: Tensor, scores: Tensor, count: int) -> Selection:
        """The best of the hidden states (n, d) and clusters of the next best, `count` in total."""
        n = hidden.shape[0]
        order = scores.sort(descending=True, stable=True).indices
        clusters = min(count - 1, math.floor(self.merged * math.floor(self.recycled * (n - count)) + 0.5))
        best = order[: count - clusters]
        if clusters <= 0:
            return Selection(kept=best.sort().values.cpu())
        number = max(clusters, math.floor(self.recycled * (n - len(best))))
        again = order[len(best) : len(best) + number].sort().values  # (r,)
        centre = _clustered(hidden[again].float(), clusters)  # (r,) places in `again`
        goes, source = again[centre].cpu(), again.cpu()
        kept = torch.cat([best.cpu(), torch.unique(goes)]).sort().values
        weight = 1 / torch.bincount(goes, minlength=n)[goes].float()
        return Selection(kept=kept, merge=Merge(target=torch.searchsorted(kept, goes), source=source, weight=weight))


def _clustered(x: Tensor, clusters: int, neighbours: int = 5) -> Tensor:
    """(r,): index of the cluster centre of each of x (r, d), by density peaks over nearest neighbours.

    Source: Du et al. 2016, DPC-KNN, as in SparseVLM's code, which has it from TCFormer: the density of a token falls
    with the mean squared distance to its nearest neighbours; centres are dense and far from denser tokens.
    """
    distance = torch.cdist(x, x) / x.shape[1] ** 0.5  # (r, r)
    near = distance.topk(min(neighbours, len(x)), dim=1, largest=False).values  # itself among them
    density = (-near.square().mean(1)).exp()
    rank = density.argsort(descending=True, stable=True).argsort()  # ties: the earlier is the denser
    denser = rank[None, :] < rank[:, None]
    apart = distance.masked_fill(~denser, float("inf")).amin(1)
    apart = torch.where(rank == 0, distance.amax(), apart)
    centres = (density * apart).sort(descending=True, stable=True).indices[:clusters].sort().values
    goes: Tensor = centres[distance[:, centres].argmin(1)]
    goes[centres] = centres  # also where two tokens are the same
    return goes
