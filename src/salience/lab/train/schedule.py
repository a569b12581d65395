"""Learning rate schedule of all training here."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup: float = 0.05) -> float:
    """Share of the full rate at `step` of `steps`: a linear rise over the share `warmup`, then a cosine to 0."""
    warm = max(1, int(steps * warmup))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
