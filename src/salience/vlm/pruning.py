"""A model, and how its visual tokens are pruned."""

from __future__ import annotations

from dataclasses import dataclass

from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.pruned_inputs import Positions


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruning:
    """A model and its pruning, as one object for every module that takes part.

    substitute: a clause on what replaces something that the method needs and the model lacks; empty if nothing does.
    """

    adapter: Adapter
    method: Method
    budget: Budget
    positions: Positions = "auto"
    substitute: str = ""

    @property
    def in_llm(self) -> InLLMMethod | None:
        """The method, if it drops tokens inside the language model."""
        return self.method if isinstance(self.method, InLLMMethod) else None

    @property
    def compact(self) -> bool:
        """Whether the gaps between positions are closed."""
        return self.positions == "compact"
