"""Check that a scorer was trained on this model's vision tower: another tower's features mean something else."""

from __future__ import annotations

import logging

from salience.vlm.families import Adapter, same_adapters, same_tower, unlike
from salience.vlm.methods.base import Method

_log = logging.getLogger("salience")


def require_same_tower(method: Method, adapter: Adapter) -> None:
    """Raise a ValueError when a scorer in the method was trained on another vision tower than this model's.

    A scorer without a fingerprint passes. Other PEFT adapters in the tower, which change its features a little, give a
    warning.
    """
    if not (towers := method.towers()):
        return
    mine = adapter.fingerprint()
    for made_for in towers:
        if not same_tower(made_for, mine):
            raise ValueError(
                f"the scorer of method {method.name!r} was trained on another vision tower than this model's "
                f"({unlike(made_for, mine)}), whose features it cannot rate: train one with `salience fit`; if the "
                "towers are near enough, pass salience.vlm.methods.saliency.Saliency(scorer=..., any_tower=True)."
            )
        if not same_adapters(made_for, mine):
            _log.warning(
                "method %r: its scorer was trained on this vision tower with other PEFT adapters in it, or none; the "
                "features differ a little from those of the training.",
                method.name,
            )
