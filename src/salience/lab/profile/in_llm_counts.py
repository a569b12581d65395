"""Work of a language model that drops tokens between its layers, counted as `prune` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from salience.core.types import Selection, TokenContext
from salience.lab.profile.profile_config import PromptShape
from salience.vlm.in_llm.layer_hooks import Prefill
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import InLLMPicture
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.compose import ThenInLLM
from salience.vlm.methods.in_llm_method import InLLMMethod


def entering(method: InLLMMethod, kept: int, n: int) -> int:
    """Number of a picture's n tokens that enter the language model if `kept` remain after the last stage."""
    return max(kept, method.coarse.count(n)) if isinstance(method, ThenInLLM) else n


@contextmanager
def dropping(model: Any, method: InLLMMethod, prompt: PromptShape, *, kept: int, entered: int) -> Iterator[None]:
    """Drop tokens while a language model runs on a prompt: of a picture's `entered` tokens `kept` remain at the end.

    The work does not depend on which tokens remain. Counts that depend on values (SparseVLM's ranks) are replaced by
    equal steps.
    """
    real = torch.ones(prompt.batch, prompt.text_tokens + prompt.images * entered, dtype=torch.int64)
    pictures = [
        InLLMPicture(
            row=row,
            columns=prompt.text_tokens // 2 + image * entered + torch.arange(entered),
            kept=torch.arange(entered),
            places=lambda kept: torch.zeros(entered, dtype=torch.bool).index_fill(0, kept, True),
            tokens=torch.arange(entered),
            budget=Budget(tokens=kept),
        )
        for row in range(prompt.batch)
        for image in range(prompt.images)
    ]
    with Prefill(LLMLayers(model), _First(method=method), pictures, real, side="left").running():
        yield


@dataclass(frozen=True, kw_only=True, eq=False)
class _First(InLLMMethod):
    """A method that reads attention where another does, and keeps the first tokens: the same number as that one."""

    method: InLLMMethod

    def __post_init__(self) -> None:
        for name in ("name", "looks", "rows"):
            object.__setattr__(self, name, getattr(self.method, name))

    def drops(self, depth: int) -> tuple[int, ...]:
        return self.method.drops(depth)

    def stay(self, ctx: TokenContext, budget: Budget, *, entered: int, stage: int, stages: int) -> Selection:
        kept = self.count(entered, budget.count(entered), stage, stages)
        return Selection(kept=torch.arange(min(kept, len(ctx.features))))
