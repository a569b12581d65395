"""What pruning's parts hand to each other: a grid, what a method sees of one picture, and what it chose."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VisualGrid:
    """How one picture's visual tokens lie on it: token `i` is the cell (i // columns, i % columns)."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"rows and columns must be at least 1, not {self.rows} and {self.columns}.")

    @property
    def n(self) -> int:
        """Number of visual tokens."""
        return self.rows * self.columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The tokens of one picture that stay.

    kept: (k,) int64 on the CPU, rising, so in raster order.
    scores: (n,) float32 on the CPU, None for a method without scores.
    """

    kept: Tensor
    scores: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenContext:
    """What a method sees of one picture.

    features: (n, d), the vision tower's tokens before the projector, in the model's dtype.
    image_index: the picture's place in the batch.
    cls_attention: (n,) float32, what [CLS] pays each token, mean over heads; None unless the method's `needs` names it.
    projected: (n, d_llm), the tokens after the projector; None unless the method's `needs` names it.
    digest: a number made of the picture's pixels; None unless the method's `needs` names it.
    """

    features: Tensor
    grid: VisualGrid
    image_index: int = 0
    cls_attention: Tensor | None = None
    projected: Tensor | None = None
    digest: int | None = None
