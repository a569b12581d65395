"""Record of a pruned call: grids, scores and kept tokens of its pictures; the last one of each thread and task."""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from salience.core.types import Merge, VisualGrid

if TYPE_CHECKING:
    from asyncio import Task

    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StageTrace:
    """The tokens of a picture that a stage inside the language model left: from layer `layer` (from 0) on, (k,) int64.

    merge: sums that some of them became, in the picture's numbering but for `target`; None if nothing was merged.
    """

    layer: int
    kept: Tensor
    merge: Merge | None = None

    def __repr__(self) -> str:
        return f"StageTrace(layer={self.layer}, {len(self.kept)} kept)"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageTrace:
    """One picture of the last call: grid, scores (n,) float32 or None, kept (k,) int64 in raster order, on the CPU.

    Where a family cuts pictures into tiles, each tile has a trace of its own. `picture` is then the number of its
    picture where that is known: for LLaVA-NeXT and LLaVA-OneVision (the whole picture, then the large one), not where
    tiles are fed as pictures. `merge` says which tokens a kept one took in; None if the method merges nothing.

    A method that drops tokens inside the language model has `stages`, the tokens that each stage left. `kept` are those
    of the last stage, `entered` (e,) those that entered the language model, which `merge` numbers. `scores` are there
    if the first stage scored all tokens.
    """

    grid: VisualGrid
    scores: Tensor | None
    kept: Tensor
    picture: int = 0
    merge: Merge | None = None
    stages: tuple[StageTrace, ...] = ()
    entered: Tensor | None = None

    def __repr__(self) -> str:
        found = f"{self.grid.rows} x {self.grid.columns} grid, {len(self.kept)} of {self.grid.n} tokens kept"
        if self.scores is not None:
            found += f", scores {self.scores.min().item():.3g} to {self.scores.max().item():.3g}"
        if self.stages:
            found += f", dropped from layer {', '.join(str(stage.layer) for stage in self.stages)} on"
        return f"ImageTrace({found})"

    def counts(self, depth: int) -> list[int]:
        """Number of the picture's tokens in each of the language model's `depth` layers."""
        seen = [len(self.kept if self.entered is None else self.entered)] * depth
        for stage in self.stages:
            seen[stage.layer :] = [len(stage.kept)] * (depth - stage.layer)
        return seen

    def share(self, depth: int) -> float:
        """Share of the picture's tokens in a layer, mean over layers: methods are to be compared at equal shares."""
        return sum(self.counts(depth)) / (depth * self.grid.n)

    def groups(self) -> dict[int, set[int]]:
        """Kept token that took others in -> all tokens that went into it over all stages, itself among them."""
        found: dict[int, set[int]] = {}
        _take_in(found, self.kept if self.entered is None else self.entered, self.merge)
        for stage in self.stages:
            _take_in(found, stage.kept, stage.merge)
        return {token: found[token] for token in self.kept.tolist() if token in found}

    def draw(self, image: Image, *, scores: bool = False) -> Image:
        """The picture as the model saw it (cropped as the processor crops) with kept cells bright and the rest dimmed.

        A kept token that took others in is outlined, and the area of its `groups()` with a thinner line. With `scores`
        cells are tinted by rank, from blue, the lowest, to red.

        Raises:  ValueError when scores are asked for and the method gave none
        """
        from salience.vlm import drawing

        drawn = drawing.kept_picture(image, self.grid, self.kept.tolist())
        if scores:
            if self.scores is None:
                raise ValueError("scores can't be drawn: the method gave none.")
            drawn = drawing.heat_picture(drawn, self.grid, self.scores)
        drawing.outline(drawn, self.grid, self.groups())
        return drawn


def _take_in(found: dict[int, set[int]], kept: Tensor, merge: Merge | None) -> None:
    """One more stage: the tokens that went into `kept`, with all that had gone into those before."""
    if merge is None:
        return
    before = dict(found)
    for target, source in zip(kept[merge.target].tolist(), merge.source.tolist(), strict=True):
        found[target] = found.get(target, {target}) | before.get(source, {source})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trace:
    """The last call that carried pictures.

    images: in batch order.   columns: for each row of the prompt, (L,) int64 on the CPU, the original column of each
    remaining one, -1 for padding that pruning added.   substitute: as `Pruned.substitute`.
    note: a sentence where pictures have fewer tokens than `tokens` asks for and were kept whole; else empty.
    """

    images: tuple[ImageTrace, ...] = ()
    columns: tuple[Tensor, ...] = ()
    substitute: str = ""
    note: str = ""

    def __repr__(self) -> str:
        kept, before = sum(len(image.kept) for image in self.images), sum(image.grid.n for image in self.images)
        return f"Trace({len(self.images)} image{'s' * (len(self.images) != 1)}, {kept} of {before} tokens kept)"


class _ThreadTrace(threading.local):
    """The last trace of the running thread."""

    trace: Trace | None = None


class LastTraces:
    """Last traces. A caller reads that of its own task, else of its own thread, else the last of any thread.

    So a thread that generates and one that only waits for it, and calls nothing itself, read the same trace.
    """

    def __init__(self) -> None:
        self._last, self._thread = Trace(), _ThreadTrace()
        self._of_task: weakref.WeakKeyDictionary[Task[Any], Trace] = weakref.WeakKeyDictionary()

    def get(self) -> Trace:
        """The trace of the caller's last call that carried pictures."""
        task = _current_task()
        return (task and self._of_task.get(task)) or self._thread.trace or self._last

    def set(self, trace: Trace) -> None:
        """Note the trace of a call of this thread."""
        if (task := _current_task()) is not None:
            self._of_task[task] = trace
        self._thread.trace = self._last = trace


def _current_task() -> Task[Any] | None:
    """The task that this thread runs; None outside of an event loop."""
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:
        return None
