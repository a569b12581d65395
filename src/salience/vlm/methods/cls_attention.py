"""[CLS] attention (FasterVLM): the tokens to which the vision tower's own summary token attends most."""

from __future__ import annotations

from torch import Tensor

from salience.core.types import TokenContext
from salience.vlm.methods.base import Method


class ClsAttention(Method):
    """Keep the tokens [CLS] pays most attention, mean over heads, in the layer whose output the model uses.

    Source: FasterVLM, arXiv:2412.01818, equation 3.  Deviation: none known; kept tokens stay in raster order there too.
    Where the tower has no [CLS], the average attention of all tokens to a token replaces it, which is not in the paper.
    """

    name = "cls-attention"
    needs = frozenset({"cls_attention"})

    def score(self, ctx: TokenContext) -> Tensor:
        assert ctx.cls_attention is not None  # checked by select_all
        return ctx.cls_attention

    def shares(self, scores: Tensor) -> Tensor:
        return scores / scores.sum(-1, keepdim=True)
