"""Learned saliency: the tokens that a trained scorer rates highest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salience.core.types import TokenContext
from salience.vlm.methods.base import Method
from salience.vlm.scorers.scorer import Scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Saliency(Method):
    """Keep the tokens to which `scorer`, a network on the features before the projector, gives the highest logits.

    any_tower: allow a vision tower that the scorer was not trained on, such as one trained further since.
    """

    name = "saliency"
    scorer: Scorer
    any_tower: bool = False

    def score(self, ctx: TokenContext) -> Tensor:
        logits: Tensor = self.scorer(ctx.features)  # (n, d) -> (n,)
        return logits

    def towers(self) -> list[Mapping[str, Any]]:
        return [] if self.any_tower else super().towers()

    def check(self, *, d_features: int) -> None:
        width = self.scorer.config.d_features
        if width != d_features:
            raise ValueError(f"the scorer reads features {width} wide, but this model's are {d_features} wide.")
        if wrong := [
            name for name, value in self.scorer.network.named_parameters() if not bool(value.isfinite().all())
        ]:
            raise ValueError(f"the scorer's weights must be finite, and {', '.join(wrong)} holds NaN or infinity.")

    def to(self, device: torch.device) -> Saliency:
        return replace(self, scorer=copy.deepcopy(self.scorer).to(device).eval())
