"""Configuration of a scorer, as its config.json holds it, and the static table of architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Name -> "module:class". A class takes a `ScorerConfig`; its module maps features (..., n, d) to logits (..., n).
ARCHITECTURES = {"mlp": "salience.vlm.scorers.mlp:MLP"}


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """Shape and origin of a scorer.

    d_features: width of the vision tower's features.   architecture: a name in `ARCHITECTURES`.
    hidden: width of the hidden layer.   objective: the training objective, "untrained" without one.
    model: fingerprint of the vision tower it was trained on (`adapter.fingerprint()`); it may be used on that tower
    alone. None allows any tower of its width.
    training: steps, seed and other facts of the training, for the reader.
    """

    d_features: int
    architecture: str = "mlp"
    hidden: int = 64
    objective: str = "untrained"
    model: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("d_features", "hidden"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, not {self.architecture!r}.")
        if not (self.model is None or isinstance(self.model, Mapping)):
            raise ValueError(f"model must be a vision tower's fingerprint, a mapping, not {self.model!r:.60}.")
