"""Settings of `salience profile` and `salience.profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from salience.lab.profile.in_llm_counts import in_llm_method
from salience.lab.profile.picture_arguments import DEFAULT_SIZE, PictureInputs
from salience.lab.profile.prompt_shape import PromptShape
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Settings of a profile; see `salience.profile` for each.

    Raises:  ValueError when one is out of its range
    """

    keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.1)
    method: str | InLLMMethod | None = None
    prompt: PromptShape = field(default_factory=PromptShape)
    picture: tuple[int, int] = DEFAULT_SIZE
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if not self.budgets:
            raise ValueError("keep must name at least one ratio above 0 and at most 1.")
        _ = self.in_llm
        self.pictures()

    @cached_property
    def budgets(self) -> list[Budget]:
        """One budget for each ratio."""
        return [Budget(keep=share) for share in self.keep]

    @cached_property
    def in_llm(self) -> InLLMMethod | None:
        """The method inside the language model; None for a scorer, before the projector."""
        return None if self.method is None else in_llm_method(self.method)

    def pictures(self, prepared: Mapping[str, Tensor] | None = None) -> PictureInputs:
        """Inputs for all pictures of the prompt. prepared: see `PictureInputs`"""
        return PictureInputs(count=self.prompt.batch * self.prompt.images, size=self.picture, prepared=prepared)
