"""Sequence tasks by name. Each is one file in `tasks`, with its origin, licence and baselines."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

from salience.lab.data.sequences.task_options import read_options, written

if TYPE_CHECKING:
    from salience.lab.data.sequences.sequence_task import SequenceTask

#: name -> (module, one line for a list of tasks)
TASKS = {
    "smnist": ("pixels", "handwritten digits, pixel by pixel (784 steps)"),
    "psmnist": ("pixels", "the same in one fixed random order"),
    "digits49": ("pixels", "handwritten digits as 49 patches of 4 x 4 pixels"),
    "fashion": ("pixels", "Fashion-MNIST at full size, pixel by pixel (784 steps)"),
    "timeseries": ("timeseries", "the power that household appliances draw (1,460 steps)"),
    "digit-tagging": ("tagging", "a strip of five digits, column by column: which digit is it? (140 steps)"),
    "copying": ("copying", "repeat the tokens that stood at the beginning"),
    "selective-copying": ("copying", "repeat the tokens that stood at random places"),
    "induction": ("induction", "what followed the special token before? Trained at 256, tested to 16,384"),
    "listops": ("listops", "what a nested list operation comes to"),
}
#: prefix of a task that reads your own data from a path -> the same
PATH_TASKS = {
    "csv": ("own_sequences", "your sequences with labels: a CSV or JSONL file"),
    "text": ("own_text", "your text: which byte comes next? A file or a folder"),
}


def load(name: str, *, seed: int = 0, **options: object) -> SequenceTask:
    """Load a sequence task. `SequenceTask` describes the contract.

    Args:    name: "smnist", "csv:PATH", or with options "selective-copying:tokens=16,length=4096"
             seed: of generated data and of the split of your own rows; published splits do not depend on it
             options: the same as in the name; the task's module has their defaults
    Raises:  ValueError, one sentence, for an unknown name, option or value and for data that can't be read; OSError for
             a failed download; ModuleNotFoundError where the package with the data is missing
    """
    task, _, rest = name.partition(":")
    by_path = task in PATH_TASKS
    if not by_path and task not in TASKS:
        known = [*TASKS, *(f"{prefix}:PATH" for prefix in PATH_TASKS)]
        near = difflib.get_close_matches(task, [*TASKS, *PATH_TASKS], n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"task must be one of {', '.join(known)}, not {name!r}{hint}")
    if by_path and not rest:
        raise ValueError(f"{task} needs a path, as in {task}:PATH.")
    module = importlib.import_module(f"salience.lab.data.sequences.tasks.{(TASKS | PATH_TASKS)[task][0]}")
    values = read_options(task, "" if by_path else rest, options, module.OPTIONS)
    found: SequenceTask = module.build(rest if by_path else task, seed=seed, **values)
    return replace(found, name=name if by_path else written(task, values, module.OPTIONS))


__all__ = ["PATH_TASKS", "TASKS", "load"]
