"""Progress on standard error, so that standard output stays free for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressBars:
    """Progress bars of one job. Without a display, nothing is drawn."""

    def __init__(self, bars: Progress | None = None) -> None:
        self._bars = bars

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Tick]:
        """A bar for one part of the job. Calling the yielded tick moves it by one, or by the given number."""
        if self._bars is None:
            yield Tick()
            return
        task = self._bars.add_task(name, total=total)
        try:
            yield Tick(self._bars, task)
        finally:
            self._bars.stop_task(task)


class Tick:
    """Moves one bar, or none without a display."""

    def __init__(self, bars: Progress | None = None, task: TaskID | None = None) -> None:
        self._bars, self._task = bars, task

    def __call__(self, by: int = 1) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, by)

    def say(self, text: str) -> None:
        """Change the text in front of the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=text)


@contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[ProgressBars]:
    """Bars on standard error while the block runs; `quiet` draws none."""
    if quiet:
        yield ProgressBars()
        return
    from rich import progress
    from rich.console import Console

    before = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    times = (progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn())
    with progress.Progress(*before, *times, console=Console(stderr=True)) as bars:
        yield ProgressBars(bars)
