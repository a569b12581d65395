"""Sequence tasks by name. Each is one file in `tasks`, with its origin, licence and baselines."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from salience.lab.data.sequences.task_options import check_options, read_options, written

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


def load(name: str, *, seed: int = 0, **options: Any) -> SequenceTask:
    """Load a sequence task. `SequenceTask` describes the contract.

    Args:    name: "smnist", "csv:PATH", or with options "selective-copying:tokens=16,length=4096"
             seed: of generated data and of the split of your own rows; published splits do not depend on it
             options: the same as in the name; the task's module has their defaults
    Raises:  ValueError, one sentence, for an unknown name, option or value and for data that can't be read; OSError for
             a failed download; ModuleNotFoundError where the package with the data is missing
    """
    task, _, rest = name.partition(":")
    if task in PATH_TASKS:
        return _load_path(task, rest, name, seed, options)
    if task not in TASKS:
        raise ValueError(unknown_task(name))
    module = _module(TASKS[task][0])
    given = {**read_options(task, rest, module.OPTIONS), **check_options(task, options, module.OPTIONS)}
    asked, full = written(task, given, module.OPTIONS), {**module.OPTIONS, **given}
    if task == "timeseries":
        found = module.build(seed=seed, name=asked, options=full)
    elif TASKS[task][0] in ("pixels", "copying"):
        found = module.build(task, seed=seed, name=asked, **full)
    else:
        found = module.build(seed=seed, name=asked, **full)
    return _checked(found)


def unknown_task(name: str) -> str:
    """Return the message for an unknown name, with the nearest known one."""
    known = [*TASKS, *(f"{prefix}:PATH" for prefix in PATH_TASKS)]
    near = difflib.get_close_matches(name.partition(":")[0], [*TASKS, *PATH_TASKS], n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"task must be one of {', '.join(known)}, not {name!r}{hint}"


def _load_path(task: str, path: str, name: str, seed: int, options: dict[str, Any]) -> SequenceTask:
    if not path:
        raise ValueError(f"{task} needs a path, as in {task}:PATH.")
    module = _module(PATH_TASKS[task][0])
    allowed = getattr(module, "OPTIONS", {})
    given = {**allowed, **check_options(task, options, allowed)}
    return _checked(module.build(path, seed=seed, name=name, **given))


def _checked(found: Any) -> SequenceTask:
    from salience.lab.data.sequences.sequence_task import SequenceTask

    assert isinstance(found, SequenceTask)
    return found


def _module(name: str) -> Any:
    return importlib.import_module(f"salience.lab.data.sequences.tasks.{name}")


__all__ = ["PATH_TASKS", "TASKS", "load", "unknown_task"]
