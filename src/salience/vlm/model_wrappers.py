"""Wrappers on one model instance: they hide its class's methods until taken off.

Copies of the model come without them, since they would run the original's weights.

Python looks these functions up on the instance, so its class stays as it is. `copy.deepcopy` and `pickle` both call
`__reduce_ex__`. Only pickle also pickles its parts, and one of them, the wrappers' owner, refuses to be pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn

from salience.vlm.thread_hooks import remove_hooks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OWNER = "_salience_pruned"  # attribute of our wrappers: whose they are
_Functions = Mapping[str, Callable[..., Any] | None]  # name on the instance -> function


class ModelWrappers:
    """Functions in a model's own dictionary, by the name of the method that each replaces, marked with their owner."""

    def __init__(self, model: PreTrainedModel, owner: object, wrappers: Mapping[str, Callable[..., Any]]) -> None:
        self._model = model
        self._ours: dict[str, Any] = dict(wrappers)
        self._before: dict[str, Any] = {name: model.__dict__.get(name) for name in wrappers}
        for wrapper in wrappers.values():
            setattr(wrapper, OWNER, owner)
        for name, function in _copying(model, owner, self._ours, self._before).items():
            self._before[name], self._ours[name] = model.__dict__.get(name), function
        model.__dict__.update(self._ours)

    def take_off(self) -> None:
        """Put back what was there. A wrapper that somebody has wrapped since stays, and must pass calls through."""
        for name, before in self._before.items():
            if self._model.__dict__.get(name) is not self._ours[name]:
                continue
            if before is None:
                del self._model.__dict__[name]
            else:
                self._model.__dict__[name] = before


def _copying(
    model: PreTrainedModel, owner: object, ours: _Functions, before: _Functions
) -> dict[str, Callable[..., Any]]:
    """Copy and pickle functions of a pruned model, by name.

    Args:    ours: the functions on the instance; these will be added   before: the ones they replace, None for nothing
    """
    kind: Any = type(model)

    def state() -> dict[str, Any]:
        found: dict[str, Any] = dict(kind.__getstate__(model))
        for name, value in list(found.items()):
            if name in ours and value is ours[name]:
                found.pop(name)
                if before[name] is not None:
                    found[name] = before[name]
            elif value is ours["forward"]:  # accelerate, if hooked since, keeps it under another name
                found[name] = before["forward"] or MethodType(kind.forward, model)
        return found

    def reduce(protocol: Any) -> Any:
        if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__:
            return kind.__reduce_ex__(model, protocol)
        return (_blank, (kind, owner), state())

    def replicate() -> NoReturn:
        raise ValueError("a pruned model can't be replicated by DataParallel: use a process for each device.")

    return {"__getstate__": state, "__reduce_ex__": reduce, "_replicate_for_data_parallel": replicate}


def _blank(kind: Any, _: object) -> Any:
    """A new instance without state, whose `__setstate__` also takes off hooks of calls that run during the copy."""
    made: Any = kind.__new__(kind)
    made.__dict__["__setstate__"] = partial(_fill, made)
    return made


def _fill(made: Any, state: dict[str, Any]) -> None:
    del made.__dict__["__setstate__"]
    made.__setstate__(state)
    remove_hooks(made)
