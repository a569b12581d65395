"""What a pruned call tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from salience.core.types import Merge, VisualGrid

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class StageTrace:
    """What a stage between two layers left of a picture: from layer `layer` (counted from 0) on, kept (k,) int64.

    merge: which of them took in others, in the picture's numbering but for `target`; None where none did.
    """

    layer: int
    kept: Tensor
    merge: Merge | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTrace:
    """One picture of the last call: grid, scores (n,) float32 or None, kept (k,) int64 in raster order, on the CPU.

    Where a family cuts pictures up, each piece has its own, and `picture` says which picture it is of, where that is
    known: it is for LLaVA-NeXT and LLaVA-OneVision (the whole picture, then the large one), not where tiles are fed as
    pictures. `merge` says what went into which kept token, None where the method merges nothing.

    Of a method that drops tokens inside the language model `kept` is what the last stage left, `entered` (e,) what
    entered it (`merge` numbers these then), and `stages` what each left; scores are there where the first stage gave
    some to all tokens.
    """

    grid: VisualGrid
    scores: Tensor | None
    kept: Tensor
    picture: int = 0
    merge: Merge | None = None
    stages: tuple[StageTrace, ...] = ()
    entered: Tensor | None = None

    def counts(self, depth: int) -> list[int]:
        """How many of its tokens each of the language model's `depth` layers saw."""
        seen = [len(self.kept if self.entered is None else self.entered)] * depth
        for stage in self.stages:
            seen[stage.layer :] = [len(stage.kept)] * (depth - stage.layer)
        return seen

    def share(self, depth: int) -> float:
        """The mean over layers of the share of its tokens that a layer saw: what methods are to be compared at."""
        return sum(self.counts(depth)) / (depth * self.grid.n)

    def groups(self) -> dict[int, set[int]]:
        """Kept token that took others in -> all tokens that went into it, in however many steps, itself among them."""
        found: dict[int, set[int]] = {}
        _take_in(found, self.kept if self.entered is None else self.entered, self.merge)
        for stage in self.stages:
            _take_in(found, stage.kept, stage.merge)
        return {token: found[token] for token in self.kept.tolist() if token in found}

    def draw(self, image: Image, *, scores: bool = False) -> Image:
        """The picture as the model saw it (cropped as the processor crops) with kept cells bright and the rest dimmed.

        A kept token that took others in is outlined, and so, finer, is the area of its `groups()`. With `scores`
        cells are tinted by rank, from blue, the lowest, to red.

        Raises:  ValueError when scores are asked for and the method gave none
        """
        from salience.vlm.drawing import draw_kept

        return draw_kept(image, self.grid, self.kept, scores=self.scores, groups=self.groups(), heat=scores)


def _take_in(found: dict[int, set[int]], kept: Tensor, merge: Merge | None) -> None:
    """One step more: what went into the tokens `kept`, whatever had gone into those that went in."""
    if merge is None:
        return
    before = dict(found)
    for target, source in zip(kept[merge.target].tolist(), merge.source.tolist(), strict=True):
        found[target] = found.get(target, {target}) | before.get(source, {source})


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """The last call that carried pictures.

    images: in batch order.   columns: for each row of the prompt, (L,) int64 on the CPU, the original column of each
    remaining one, -1 for padding that pruning added.   substitute: as `Pruned.substitute`.
    note: where pictures had fewer tokens than `tokens` asks for, and were kept whole, a sentence; else empty.
    """

    images: tuple[ImageTrace, ...] = ()
    columns: tuple[Tensor, ...] = ()
    substitute: str = ""
    note: str = ""
