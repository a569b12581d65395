"""Token merging (ToMe) inside the vision tower: a few of the most alike tokens are merged in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


@dataclass(frozen=True, kw_only=True, eq=False)
class ToMe(Method):
    """Merge, in each layer of the vision tower, the r pairs of tokens with the most similar keys, so that k are left.

    The only method here that makes the tower itself cheaper. Between a layer's attention and its MLP the tokens are
    split into every other one; each of the first half proposes to the most similar of the second, and the r best pairs
    become their mean, weighted by how many patches are in each. Attention adds the log of that number to a key's
    logit. A merged token stands where the token stood that took the others in; the trace draws what went into it.

    `keep` and `tokens` say how many are left, k: r is the smallest number that gets there, and the last layers merge
    fewer. A layer can at most halve the tokens. keep = 1 merges nothing, and the tower runs as it is.

    Source: ToMe, arXiv:2210.09461, section 3.  Deviation: r follows from the budget (there it is given); only layers up
    to the one whose output the model uses merge; the halves are every other patch in raster order, [CLS] apart (there
    in the order that merging left, [CLS] in the first half and protected).
    """

    name: ClassVar[str] = "tome"
    scored: ClassVar[bool] = False
    in_tower: ClassVar[bool] = True
    needs_all: ClassVar[bool] = True

    def merges(self, n: int, layers: int, budget: Budget) -> Sequence[int]:
        """See `Method.merges`.

        Raises:  ValueError when even halving the tokens in every layer leaves more than the budget
        """
        return constant_schedule(n, budget.count(n), layers)

    def choose(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        found = [ctx.left for ctx in contexts if ctx.left is not None]
        if len(found) < len(contexts):
            raise ValueError(
                f"method {self.name!r} merges while the vision tower runs, and can't choose of what it gave."
            )
        return found


@lru_cache(maxsize=64)
def constant_schedule(n: int, k: int, layers: int) -> tuple[int, ...]:
    """How many of n tokens go in each layer for k to be left: r in each, at most half, the smallest r that gets there.

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
        f"method 'tome' can at most halve the tokens in each of {layers} layers: {left} of {n} are left then, not {k}."
    )
