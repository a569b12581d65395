"""Tasks and their data, each with its origin, licence and baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salience.lab.data.scenes import Sample
    from salience.lab.data.sequences.sequence_task import SequenceTask

TASKS = ("scenes",)


def load(task: str, *, split: str, n: int, seed: int = 0, questions: int = 1) -> list[Sample]:
    """Load samples of a task of pictures and questions: see `salience.lab.data.scenes.load`.

    For sequence tasks (`smnist`, `copying`, ...) see `sequence_task`.

    Raises:  ValueError for an unknown task, split or count
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, not {task!r}")
    from salience.lab.data import scenes

    return scenes.load(split=split, n=n, seed=seed, questions=questions)


def sequence_task(name: str, *, seed: int = 0, **options: Any) -> SequenceTask:
    """Load a task for sequence models, "smnist" or "csv:PATH": see `salience.lab.data.sequences.load`."""
    from salience.lab.data import sequences

    return sequences.load(name, seed=seed, **options)


__all__ = ["TASKS", "load", "sequence_task"]
