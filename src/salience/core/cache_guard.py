"""Guard on a KV cache that was filled from a pruned prompt. Only calls that know the dropped tokens may continue it.

Such a cache can outlive the pruning. A model that gets it later takes its length for the number of tokens so far, and
continues at wrong positions under a wrong mask. So the methods that a forward calls on a cache are replaced, on this
one object, by ones that raise. `reading` removes them for calls that know. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Methods of transformers' caches that a forward calls, and those that move rows, which the notes do not follow.
_GUARDED = (
    "update", "update_conv_state", "update_recurrent_state", "update_indexer", "get_mask_sizes", "reorder_cache",
    "batch_select_indices", "batch_repeat_interleave", "get_conv_state", "get_recurrent_state",
)  # fmt: skip
_NOTES = "_salience_"  # prefix of the attributes kept on a cache


class Refusal:
    """Refusing substitute for one method of a guarded cache.

    It holds the cache, and no closure does, so that the copy in a deep copy or a pickle refuses for its own.
    """

    def __init__(self, cache: Any, name: str) -> None:
        self.cache, self.name = cache, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _is_empty(self.cache):  # emptied since: a new sequence begins
            forget(self.cache)
            return getattr(self.cache, self.name)(*args, **kwargs)
        raise ValueError(
            "this cache was filled from a pruned prompt and can be continued only while its model is pruned: "
            "make the next call inside `with salience.prune(...)`, with any method, or begin with an empty cache."
        )


def guard(cache: Any) -> None:
    """Refuse every continuation of `cache` outside `reading`."""
    for part in _parts(cache):
        for name in _GUARDED:
            if hasattr(part, name):
                part.__dict__[name] = Refusal(part, name)


def is_guarded(cache: Any) -> bool:
    """Whether `cache` was filled from a pruned prompt and may not be continued now."""
    return any(isinstance(value, Refusal) for value in getattr(cache, "__dict__", {}).values())


def refuse_guarded(cache: Any) -> None:
    """Raise as the cache's own methods would, for code that reads a cache's layers itself."""
    if is_guarded(cache):
        cache.update()


def forget(cache: Any) -> None:
    """Remove the guard and all notes from a cache, for a new sequence."""
    for part in _parts(cache):
        held = part.__dict__
        for name in [name for name, value in held.items() if isinstance(value, Refusal) or name.startswith(_NOTES)]:
            del held[name]


@contextmanager
def reading(cache: Any) -> Iterator[None]:
    """Remove the guard for a call that knows what `cache` holds. A guard set meanwhile stays afterwards."""
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
    """The cache, and the inner one that an encoder-decoder model passes to its layers."""
    parts = [cache, getattr(cache, "self_attention_cache", None)]
    return [part for part in parts if hasattr(part, "__dict__")]
