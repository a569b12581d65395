"""The guard on a cache that was filled from a pruned prompt: nobody reads on from it who does not know what is missing.

Such a cache outlives the pruning. A model that is handed it later takes its length for the number of tokens that went
by, and goes on at wrong positions under a wrong mask. So the methods that a forward calls to read on are replaced on
this one object by ones that raise, and `reading` lifts them for calls that know. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What a forward calls of transformers' caches, and what moves their rows, of which the notes on a cache say nothing.
_GUARDED = (
    "update", "update_conv_state", "update_recurrent_state", "update_indexer", "get_mask_sizes", "reorder_cache",
    "batch_select_indices", "batch_repeat_interleave", "get_conv_state", "get_recurrent_state",
)  # fmt: skip
_NOTES = "_salience_"  # what is kept on a cache begins with this


class Refusal:
    """Refusing substitute for one method of a guarded cache.

    It holds the cache, and no closure does, so that the copy in a deep copy or a pickle refuses for its own.
    """

    def __init__(self, cache: Any, name: str) -> None:
        self.cache, self.name = cache, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _is_empty(self.cache):  # emptied since: what comes is a sequence of its own
            forget(self.cache)
            return getattr(self.cache, self.name)(*args, **kwargs)
        raise ValueError(
            "this cache was filled from a pruned prompt and can only be gone on from while its model is being pruned: "
            "make the next call inside `with salience.prune(...)`, with any method, or begin with an empty cache."
        )


def guard(cache: Any) -> None:
    """Let nobody read on from `cache`, but inside `reading`."""
    for part in _parts(cache):
        for name in _GUARDED:
            if hasattr(part, name):
                part.__dict__[name] = Refusal(part, name)


def is_guarded(cache: Any) -> bool:
    """Whether `cache` was filled from a pruned prompt and nobody may read on from it now."""
    return any(isinstance(value, Refusal) for value in getattr(cache, "__dict__", {}).values())


def refuse_guarded(cache: Any) -> None:
    """For code that reads a cache's layers itself: raise as the cache's own methods would."""
    if is_guarded(cache):
        cache.update()


def forget(cache: Any) -> None:
    """Take the guard and every note off a cache, for a new sequence."""
    for part in _parts(cache):
        held = part.__dict__
        for name in [name for name, value in held.items() if isinstance(value, Refusal) or name.startswith(_NOTES)]:
            del held[name]


@contextmanager
def reading(cache: Any) -> Iterator[None]:
    """While a call reads on that knows what `cache` holds: no guard; one put on meanwhile is there afterwards."""
    lifted = []
    for part in _parts(cache):
        names = [name for name, value in part.__dict__.items() if isinstance(value, Refusal)]
        lifted += [(part, name, part.__dict__.pop(name)) for name in names]
    try:
        yield
    finally:
        for part, name, refusal in lifted:
            part.__dict__[name] = refusal


def _is_empty(cache: Any) -> bool:
    try:
        return int(cache.get_seq_length()) == 0
    except ValueError:  # of recurrent layers alone, whose state has no length
        return False


def _parts(cache: Any) -> list[Any]:
    """The cache, and the one inside that an encoder-decoder model hands its layers."""
    parts = [cache, getattr(cache, "self_attention_cache", None)]
    return [part for part in parts if hasattr(part, "__dict__")]
