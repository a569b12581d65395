"""What a pruned call tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from salience.core.types import VisualGrid


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTrace:
    """One picture of the last call: grid, scores (n,) float32 or None, kept (k,) int64 in raster order, on the CPU.

    Where a family cuts pictures up, each piece has its own, and `picture` says which picture it is of, where that is
    known: it is for LLaVA-NeXT and LLaVA-OneVision (the whole picture, then the large one), not where tiles are fed as
    pictures.
    """

    grid: VisualGrid
    scores: Tensor | None
    kept: Tensor
    picture: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The last call that carried pictures.

    images: in batch order.   columns: for each row of the prompt, (L,) int64 on the CPU, the original column of each
    remaining one, -1 for padding that pruning added.
    """

    images: tuple[ImageTrace, ...] = ()
    columns: tuple[Tensor, ...] = ()
