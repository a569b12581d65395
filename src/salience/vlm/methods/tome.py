"""Token merging (ToMe) inside the vision tower: every layer merges a few pairs of similar tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


class ToMe(Method):
    """Merge, in each layer of the vision tower, the r pairs of tokens with the most similar keys, until k remain.

    This is the only method here that makes the tower itself cheaper. Between a layer's attention and its MLP, every
    other token is in the first half. Each token of the first half is paired with the most similar of the second. The r
    best pairs become their mean, weighted by their numbers of patches. Attention adds the log of that number to a key's
    logit. A merged token has the place of its second-half token; the trace draws the patches that it contains.

    `keep` and `tokens` give k, the remaining tokens: r is the smallest number that reaches k, and the last layers merge
    fewer. A layer can at most halve the tokens. keep = 1 merges nothing, and the tower runs unchanged.

    Source: ToMe, arXiv:2210.09461, section 3.  Deviation: r follows from the budget (there it is given); only layers up
    to the one whose output the model uses merge; the halves are every other patch in raster order, without [CLS] (there
    in the order after merging, with [CLS] protected in the first half).
    """

    name = "tome"
    scored = False
    in_tower = True
    needs_all = True

    def merges(self, n: int, layers: int, budget: Budget) -> Sequence[int]:
        """See `Method.merges`.

        Raises:  ValueError when even halving the tokens in every layer leaves more than the budget
        """
        return constant_schedule(n, budget.count(n), layers)

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        found = [ctx.left for ctx in contexts if ctx.left is not None]
        if len(found) < len(contexts):
            raise ValueError(
                f"method {self.name!r} merges tokens while the vision tower runs, and can't choose from its output."
            )
        return found


@lru_cache(maxsize=64)
def constant_schedule(n: int, k: int, layers: int) -> tuple[int, ...]:
    """Number of merged tokens in each layer until k of n remain: r in each, at most half, with the smallest such r.

    Raises:  ValueError when no r does
    """
    for r in range(n - k + 1):
        found, left = [], n
        for _ in range(layers):
            found.append(min(r, left // 2, left - k))
            left -= found[-1]
        if left == k:
            return tuple(found)
    raise ValueError(
        f"method 'tome' can at most halve the tokens in each of {layers} layers, which leaves {left} of {n}, not {k}."
    )
