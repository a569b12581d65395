"""Copies of a model that is being pruned: without what is put on the original, which would run the original's weights.

Python asks the instance for these, so nothing is done to its class. `copy.deepcopy` and `pickle` both ask
`__reduce_ex__` and only the second goes into what it gives, so that something in there can refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MethodType
from typing import Any, NoReturn

from salience.vlm.thread_hooks import remove_hooks


def copying(model: Any, ours: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Copy and pickle functions of a pruned model, by name.

    Args:    ours: all that is put on the instance, by name, these functions too once they are there
             before: what the instance had in their places, None for nothing
    """

    kind: Any = type(model)

    def state() -> dict[str, Any]:
        found: dict[str, Any] = dict(kind.__getstate__(model))
        for name, value in list(found.items()):
            if name in ours and value is ours[name]:
                found.pop(name)
                if before[name] is not None:
                    found[name] = before[name]
            elif value is ours["forward"]:  # accelerate, hooked since, keeps it under another name
                found[name] = before["forward"] or MethodType(kind.forward, model)
        return found

    def reduce(protocol: Any) -> Any:
        plain: Any = object
        if kind.__reduce_ex__ is not plain.__reduce_ex__ or kind.__reduce__ is not plain.__reduce__:
            return kind.__reduce_ex__(model, protocol)
        return (_blank, (kind, _NoPickle()), state())

    def replicate() -> NoReturn:
        raise ValueError("a pruned model can't be replicated by DataParallel: use a process for each device.")

    return {"__getstate__": state, "__reduce_ex__": reduce, "_replicate_for_data_parallel": replicate}


class _NoPickle:
    """Stays itself in a copy, and refuses to be pickled."""

    def __deepcopy__(self, memo: Any) -> _NoPickle:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ValueError(
            "a model can't be pickled or saved whole while it is being pruned: undo the pruning first, or save "
            "model.state_dict()."
        )


def _blank(kind: Any, _: _NoPickle) -> Any:
    """An instance that is to be given its state; a copy made while calls are under way has hooks of ours taken off."""
    made: Any = kind.__new__(kind)
    made.__dict__["__setstate__"] = partial(_fill, made)
    return made


def _fill(made: Any, state: dict[str, Any]) -> None:
    del made.__dict__["__setstate__"]
    made.__setstate__(state)
    remove_hooks(made)
