"""Tasks and their data, each with its origin, licence and baselines."""

from __future__ import annotations

from salience.lab.data import scenes
from salience.lab.data.sequences import load as sequence_task

TASKS = ("scenes",)


def load(task: str, *, split: str, n: int, seed: int = 0, questions: int = 1) -> list[scenes.Sample]:
    """Load samples of a task of pictures and questions: see `salience.lab.data.scenes.load`.

    For sequence tasks (`smnist`, `copying`, ...) see `sequence_task`.

    Raises:  ValueError for an unknown task, split or count
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, not {task!r}")
    return scenes.load(split=split, n=n, seed=seed, questions=questions)


__all__ = ["TASKS", "load", "sequence_task"]
