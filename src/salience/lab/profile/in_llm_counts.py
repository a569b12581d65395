"""The work of a language model whose tokens go between its layers, counted as `prune` would have it run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext
from salience.vlm.in_llm.layer_hooks import Prefill
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import InLLMPicture
from salience.vlm.methods import METHODS, method_class
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.class_path import is_class_path
from salience.vlm.methods.compose import ThenInLLM
from salience.vlm.methods.in_llm_method import InLLMMethod


def in_llm_method(method: str | InLLMMethod) -> InLLMMethod:
    """The method inside the language model that is meant.

    Raises:  ValueError when it is none
    """
    known = sorted(name for name in METHODS if issubclass(method_class(name), InLLMMethod))
    named = isinstance(method, str) and (method in known or is_class_path(method))
    found = method_class(str(method))() if named else method
    if not isinstance(found, InLLMMethod):
        raise ValueError(
            f"method must be one of {', '.join(known)}, an InLLMMethod of your own as 'module:Class', or None for "
            f"pruning before the language model, not {method!r}."
        )
    return found


def entering(method: InLLMMethod, kept: int, n: int) -> int:
    """How many of a picture's n tokens enter the language model when `kept` are left behind the last stage."""
    return max(kept, method.coarse.count(n)) if isinstance(method, ThenInLLM) else n


@contextmanager
def dropping(
    model: Any, method: InLLMMethod, *, kept: int, entered: int, rows: int, images: int, text: int
) -> Iterator[None]:
    """While the language model runs on `rows` of `images` pictures of `entered` tokens and `text` text tokens.

    Which tokens stay makes no difference to the work. A count that follows from numbers nobody knows here, SparseVLM's
    ranks, is taken as equal steps.
    """
    real = torch.ones(rows, text + images * entered, dtype=torch.int64)
    pictures = [
        InLLMPicture(
            row=row,
            columns=text // 2 + image * entered + torch.arange(entered),
            kept=torch.arange(entered),
            places=lambda kept: torch.zeros(entered, dtype=torch.bool).index_fill(0, kept, True),
            tokens=torch.arange(entered),
            budget=Budget(tokens=kept),
        )
        for row in range(rows)
        for image in range(images)
    ]
    decoder = LLMLayers(model)
    with Prefill(decoder, _First(method=method), pictures, real, side="left").running():
        yield


@dataclass(frozen=True, kw_only=True, eq=False)
class _First(InLLMMethod):
    """Looks as a method does, where it does, and keeps the first tokens: as many as the method would."""

    method: InLLMMethod

    def __post_init__(self) -> None:
        for name in ("name", "looks", "rows"):
            object.__setattr__(self, name, getattr(self.method, name))

    def drops(self, depth: int) -> tuple[int, ...]:
        return self.method.drops(depth)

    def stay(self, ctx: TokenContext, budget: Budget, *, entered: int, stage: int, stages: int) -> Selection:
        kept: Tensor = torch.arange(min(self.count(entered, budget.count(entered), stage, stages), len(ctx.features)))
        return Selection(kept=kept)
