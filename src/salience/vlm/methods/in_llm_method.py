"""Base class of methods that drop tokens between the layers of the language model, by the attention of the text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget


class InLLMMethod(Method):
    """A method that drops tokens inside the language model, in one or more stages. Subclasses give `drops` and `score`.

    `keep` and `tokens` count the tokens of a picture that remain after the last stage, as with every other method.
    Earlier layers see more tokens, so at equal `keep` there is more work and cache than with a method that prunes
    before the language model. Compare by FLOPs and bytes, or by the mean over layers (`ImageTrace.share`). keep = 1
    drops nothing.

    looks: layer whose queries and keys a stage reads, the "last" one that ran before it or the "next".
    rows: tokens whose queries it reads, the prompt's "last" one or every "text" token after a picture.
    """

    looks: Literal["last", "next"] = "last"
    rows: Literal["last", "text"] = "last"

    def drops(self, depth: int) -> tuple[int, ...]:
        """Numbers of layers, of a language model's `depth`, after which tokens are dropped: rising, 1 to depth - 1.

        Raises:  ValueError when the language model has too few layers
        """
        raise NotImplementedError

    def score(self, ctx: TokenContext) -> Tensor:
        """(n,): attention that the prompt's last token pays each token."""
        assert ctx.text_attention is not None  # set by the stage
        return ctx.text_attention[-1]

    def shares(self, scores: Tensor) -> Tensor:
        return scores / scores.sum(-1, keepdim=True)

    def before(self, contexts: Sequence[TokenContext], budget: Budget) -> list[Selection]:
        """The tokens of each picture that enter the language model: all of them."""
        return [Selection(kept=torch.arange(ctx.features.shape[0])) for ctx in contexts]

    def stay(self, ctx: TokenContext, budget: Budget, *, entered: int, stage: int, stages: int) -> Selection:
        """The kept tokens of one picture at a stage, 0 to stages - 1, as indices into the tokens that remain before it.

        ctx: features are the hidden states (n, d), projected the tokens that entered the language model, (entered, d).
        budget: `tokens` that remain of the picture after the last stage, or a mass with a single stage.
        """
        if budget.tokens is None:
            return self.select(ctx, budget)
        count = self.count(entered, budget.tokens, stage, stages)
        return self.select(ctx, Budget(tokens=min(count, ctx.features.shape[0])))

    def count(self, entered: int, last: int, stage: int, stages: int) -> int:
        """Number of the `entered` tokens that remain after a stage: each keeps the same share, the last `last`."""
        if stage == stages - 1:
            return last
        left: float = entered * (last / entered) ** ((stage + 1) / stages)
        return max(last, math.floor(left + 0.5))


@dataclass(frozen=True, kw_only=True, eq=False)
class StagedMethod(InLLMMethod):
    """A method with stages at `depths`, fractions of the layers; stages that fall on one layer become one."""

    depths: tuple[float, ...] = (0.25, 0.5, 0.75)

    def __post_init__(self) -> None:
        if not self.depths or any(not 0 < part < 1 for part in self.depths):
            raise ValueError(f"depths must be fractions of the layers above 0 and below 1, not {self.depths!r}.")

    def drops(self, depth: int) -> tuple[int, ...]:
        if depth < 2:
            raise ValueError(
                f"a language model of {depth} layer has no place to drop tokens in: use a method that prunes before it."
            )
        return tuple(sorted({min(depth - 1, max(1, math.floor(part * depth + 0.5))) for part in self.depths}))
