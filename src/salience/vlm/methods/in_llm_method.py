"""The base of methods that drop tokens between the language model's layers, where the text has looked at them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


@dataclass(frozen=True, kw_only=True, eq=False)
class InLLMMethod(Method):
    """A method whose tokens go inside the language model, in one or more stages. A subclass gives `drops` and `score`.

    `keep` and `tokens` are what is left of a picture behind the last stage, as with every other method; the layers
    before see more, so that at equal `keep` more work and cache are left than with a method that prunes before the
    language model. Compare by FLOPs and bytes, or by the mean over layers (`ImageTrace.share`). keep = 1 drops nothing.

    looks: whose queries and keys a stage reads: those of the "last" layer that ran before it, or of the "next".
    rows: which queries: the prompt's "last" token, or every "text" token behind a picture.
    """

    looks: ClassVar[Literal["last", "next"]] = "last"
    rows: ClassVar[Literal["last", "text"]] = "last"

    def drops(self, depth: int) -> tuple[int, ...]:
        """After how many of a language model's `depth` layers tokens go, rising, each at least 1 and below depth.

        Raises:  ValueError when the language model has too few layers
        """
        raise NotImplementedError

    def score(self, ctx: TokenContext) -> Tensor:
        """(n,): what the prompt's last token pays each token."""
        assert ctx.text_attention is not None  # the stage has looked
        return ctx.text_attention[-1]

    def shares(self, scores: Tensor) -> Tensor:
        return scores / scores.sum(-1, keepdim=True)

    def before(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The tokens of each picture that enter the language model: all of them."""
        return [Selection(kept=torch.arange(ctx.features.shape[0])) for ctx in contexts]

    def stay(self, ctx: TokenContext, budget: Budget, *, entered: int, stage: int, stages: int) -> Selection:
        """What stays of one picture at a stage, 0 to stages - 1, counted among the tokens that are still there.

        ctx: features are the hidden states (n, d), projected what entered the language model, (entered, d).
        budget: `tokens`, what is to be left of the picture behind the last stage, or a mass, in a single stage.
        """
        if budget.tokens is None:
            return self.select(ctx, budget)
        count = self.count(entered, budget.tokens, stage, stages)
        return self.select(ctx, Budget(tokens=min(count, ctx.features.shape[0])))

    def count(self, entered: int, last: int, stage: int, stages: int) -> int:
        """How many of `entered` tokens are left behind a stage: every stage leaves the same share, the last `last`."""
        if stage == stages - 1:
            return last
        left: float = entered * (last / entered) ** ((stage + 1) / stages)
        return max(last, math.floor(left + 0.5))


def at_depths(depths: Sequence[float], depth: int) -> tuple[int, ...]:
    """Fractions of the depth -> after how many layers, rising; stages that fall on one place become one.

    Raises:  ValueError when there are fewer than two layers
    """
    if depth < 2:
        raise ValueError(
            f"a language model of {depth} layer has no place to drop tokens in: use a method that prunes before it."
        )
    return tuple(sorted({min(depth - 1, max(1, math.floor(part * depth + 0.5))) for part in depths}))


def checked_depths(depths: Sequence[float]) -> tuple[float, ...]:
    """The fractions as a tuple.

    Raises:  ValueError when there are none, or one is not between 0 and 1
    """
    if not depths or any(not 0 < part < 1 for part in depths):
        raise ValueError(f"depths must be fractions of the layers above 0 and below 1, not {depths!r}.")
    return tuple(depths)
