"""Random tokens: the baseline that every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from salience.core.types import TokenContext
from salience.vlm.methods.base import Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Random(Method):
    """Keep tokens drawn uniformly without replacement.

    The draw depends on `seed` and on the picture's pixels alone: the same seed and picture give the same tokens,
    wherever the picture stands in a batch, and different pictures get different ones.
    """

    name = "random"
    needs = frozenset({"digest"})
    scored = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be a whole number from 0 to 2**31 - 1, not {self.seed!r}.")

    def score(self, ctx: TokenContext) -> Tensor:
        assert ctx.digest is not None  # checked by select_all
        # numpy mixes both numbers whole; torch's CPU generator reads only the low 32 bits of a seed
        draw = np.random.default_rng([self.seed, ctx.digest]).permutation(ctx.features.shape[0])
        return torch.from_numpy(draw).float()
