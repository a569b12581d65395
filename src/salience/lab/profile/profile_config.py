"""Settings of `salience profile` and `salience.profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from salience.lab.profile.picture_arguments import DEFAULT_SIZE, PictureInputs
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod
from salience.vlm.methods.registry import METHODS, is_class_path, method_class

_MAX_TEXT = 2**24  # ids and masks are in memory, though weights are not


@dataclass(frozen=True, kw_only=True)
class PromptShape:
    """`batch` rows of `images` pictures and `text_tokens` of text, and `decode` tokens of answer."""

    text_tokens: int = 64
    batch: int = 1
    images: int = 1
    decode: int = 0

    def __post_init__(self) -> None:
        for name, least in (("text_tokens", 1), ("batch", 1), ("images", 1), ("decode", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
        if self.batch * (self.text_tokens + self.images) > _MAX_TEXT:
            raise ValueError(
                f"batch x (text_tokens + images) must be at most {_MAX_TEXT:,}, not {self.batch:,} x "
                f"({self.text_tokens:,} + {self.images:,})."
            )


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
        if self.method is None:
            return None
        known = sorted(name for name in METHODS if issubclass(method_class(name), InLLMMethod))
        named = isinstance(self.method, str) and (self.method in known or is_class_path(self.method))
        found = method_class(str(self.method))() if named else self.method
        if not isinstance(found, InLLMMethod):
            raise ValueError(
                f"method must be one of {', '.join(known)}, an InLLMMethod of your own as 'module:Class', or None for "
                f"pruning before the language model, not {self.method!r}."
            )
        return found

    def pictures(self, prepared: Mapping[str, Tensor] | None = None) -> PictureInputs:
        """Inputs for all pictures of the prompt. prepared: see `PictureInputs`"""
        return PictureInputs(count=self.prompt.batch * self.prompt.images, size=self.picture, prepared=prepared)
