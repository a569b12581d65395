"""Temporal de-duplication: the tokens of a video that differ from the previous frame."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.base import Method, require_finite
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.uniform import bayer_rank


class Temporal(Method):
    """Drop the tokens of a video's frames that are most like the token at the same place in the previous frame.

    The change of a token is 1 - cosine of the two tokens' features before the projector. The budget is that of the
    video, the sum of its frames' budgets; it goes to the tokens that change most, at least one in each frame. The first
    frame has no previous one: the i-th of its n cells in Bayer order has change 1 - i / n, so that it is kept whole if
    the rest is still, and evenly thinned if everything moves. A picture is a video of one frame: its uniform grid is
    kept, and the trace says so. keep = 1 keeps all tokens.

    Source: Efficient Video Sampling, arXiv:2510.14624, section 3.  Deviation: features are compared by their cosine
    (there pixels, by their L1 distance); the first frame is not always kept whole; no frame loses all its tokens.
    """

    name = "temporal"
    needs = frozenset({"frame"})
    scored = False
    needs_all = True

    def remark(self, contexts: Sequence[TokenContext]) -> str:
        if not any(ctx.frame is None for ctx in contexts):
            return ""
        return "the uniform grid replaces temporal de-duplication on pictures, which have no previous frame"

    @torch.no_grad()
    def select_all(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The kept tokens of each frame; all frames of a video are ranked together."""
        found: list[Selection] = []
        for start, ctx in enumerate(contexts):
            if start == 0 or not ctx.frame:  # the first frame of a video, or a picture
                ends = (i for i in range(start + 1, len(contexts)) if not contexts[i].frame)
                found += self._video(contexts[start : next(ends, len(contexts))], budget)
        return found

    def _video(self, frames: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        n = frames[0].features.shape[0]
        count = budget.count(n)
        if count == n:
            return [Selection(kept=torch.arange(n)) for _ in frames]
        change = torch.stack([_first(frames[0]), *(_change(a, b) for a, b in itertools.pairwise(frames))])
        require_finite(change, self.name, "differences between frames", dtype=frames[0].features.dtype)
        ranked = change.scatter(1, change.argmax(1, keepdim=True), float("inf")).flatten()  # (frames * n,)
        kept = torch.zeros(len(ranked), dtype=torch.bool)
        kept[ranked.sort(descending=True, stable=True).indices[: count * len(frames)]] = True
        rows = zip(kept.view(len(frames), n), change, strict=True)
        return [Selection(kept=row.nonzero()[:, 0], scores=scores) for row, scores in rows]


def _first(frame: TokenContext) -> Tensor:
    """(n,) float32: from 1 down in Bayer order."""
    order = bayer_rank(frame.grid.rows, frame.grid.columns).argsort().argsort()
    return 1 - order.float() / len(order)


def _change(before: TokenContext, now: TokenContext) -> Tensor:
    """(n,) float32 on the CPU: difference of each token from the previous frame's, 0 (equal) to 2."""
    return (1 - cosine_similarity(before.features.float(), now.features.float(), dim=-1)).cpu()
