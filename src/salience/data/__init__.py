"""Tasks with real data: what each is, where it comes from, its licence and its baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salience.data.scenes import Sample

TASKS = ("scenes",)


def load(task: str, *, split: str, n: int, seed: int = 0, questions: int = 1) -> list[Sample]:
    """Samples of a task by name: see `salience.data.scenes.load`.

    Raises: ValueError for an unknown task, split or count
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, not {task!r}")
    from salience.data import scenes

    return scenes.load(split=split, n=n, seed=seed, questions=questions)


__all__ = ["TASKS", "load"]
