"""Progress on standard error, so that standard output stays free for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBars:
    """Progress bars of one job. Without a display, nothing is drawn."""

    def __init__(self, bars: Progress | None = None) -> None:
        self._bars = bars

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Tick]:
        """A bar for one part of the job. Calling the yielded tick moves it by one, or by the given number."""
        if self._bars is None:
            yield Tick(None, 0)
            return
        task = self._bars.add_task(name, total=total)
        try:
            yield Tick(self._bars, task)
        finally:
            self._bars.stop_task(task)


class Tick:
    """Moves one bar."""

    def __init__(self, bars: Progress | None, task: int) -> None:
        self._bars, self._task = bars, task

    def __call__(self, by: int = 1) -> None:
        if self._bars is not None:
            from rich.progress import TaskID

            self._bars.advance(TaskID(self._task), by)

    def say(self, text: str) -> None:
        """Change the text in front of the bar."""
        if self._bars is not None:
            from rich.progress import TaskID

            self._bars.update(TaskID(self._task), description=text)


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[ProgressBars]:
    """Bars on standard error while the block runs; `quiet` draws none."""
    if quiet:
        yield ProgressBars()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )  # fmt: skip

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield ProgressBars(bars)
