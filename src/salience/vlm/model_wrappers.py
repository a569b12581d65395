"""Wrappers on one model instance: they hide the methods of its class until they are taken off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from salience.vlm.model_copies import copying

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_OWNER = "_salience_pruned"  # attribute of our wrappers: whose they are


class ModelWrappers:
    """Functions in a model's own dictionary, by the name of the method that each replaces.

    Copies of the model come without them; see `model_copies`.   owner: what `owner_of(model)` returns meanwhile.
    """

    def __init__(self, model: PreTrainedModel, owner: object, wrappers: Mapping[str, Callable[..., Any]]) -> None:
        self._model = model
        self._ours: dict[str, Any] = dict(wrappers)
        self._before: dict[str, Any] = {name: model.__dict__.get(name) for name in wrappers}
        for wrapper in wrappers.values():
            setattr(wrapper, _OWNER, owner)
        for name, function in copying(model, self._ours, self._before).items():
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


def owner_of(model: object) -> object | None:
    """The owner of the wrapper on a model's `forward`; None if there is none. A copy may show the original's."""
    return getattr(getattr(model, "forward", None), _OWNER, None)
