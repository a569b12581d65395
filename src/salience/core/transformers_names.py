"""Names that differ between transformers' releases, and the releases that were tested.

A renamed argument is handled here alone. A name is read from the model's own signature or found by its value; the
release number decides only whether the release was tested. Standard library only: nothing here imports
transformers.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from salience.core.release_bounds import ReleaseBounds

#: The cache in arguments and outputs: from 5.24 on; before; before, of state space models.
CACHE_NAMES = ("cache", "past_key_values", "cache_params")

BOUNDS = ReleaseBounds(
    package="transformers",
    oldest=(5, 21),
    newest=(5, 24),
    risk="a renamed argument can make results wrong",
)


def check_release() -> None:
    """Refuse a release of transformers outside `BOUNDS`, unless the environment variable of the bounds is set.

    Raises:  ValueError naming the release and the bounds
    """
    if (refusal := BOUNDS.refusal(release())) is not None:
        raise ValueError(refusal)


def release() -> str:
    """The version of transformers that is loaded, else of the one installed; empty without transformers."""
    loaded = getattr(sys.modules.get("transformers"), "__version__", None)
    if loaded is not None:
        return str(loaded)
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ""


def cache_argument(*forwards: Callable[..., Any]) -> str:
    """The name under which a forward takes the cache: the first that a signature among `forwards` has.

    Raises:  ValueError when none has any
    """
    for forward in forwards:
        parameters = inspect.signature(forward).parameters
        if (found := next((name for name in CACHE_NAMES if name in parameters), None)) is not None:
            return found
    owner = type(getattr(forwards[0], "__self__", forwards[0])).__name__
    raise ValueError(f"the forward of {owner} must take a cache as {_listed(CACHE_NAMES)}, and takes none of them.")


def passed_cache(model: Any, cache: Any) -> dict[str, Any]:
    """`cache` as an argument by name of the model's own forward, under torch.compile too; see `cache_argument`."""
    return {cache_argument(getattr(model, "_orig_mod", model).forward): cache}


def generated_cache_name(mixin: type) -> str:
    """The name under which `generate` carries a state space model's cache; mixin: transformers' GenerationMixin."""
    name = cache_argument(mixin.prepare_inputs_for_generation)  # type: ignore[attr-defined]
    return name if name == CACHE_NAMES[0] else CACHE_NAMES[-1]


def cache_in(given: Mapping[str, Any]) -> Any:
    """The cache among a call's keyword arguments, under any name; None without a cache.

    Raises:  ValueError when there are two that differ
    """
    found = [(name, given[name]) for name in CACHE_NAMES if given.get(name) is not None]
    found = found or [(name, value) for name, value in given.items() if is_cache(value)]
    if len(found) > 1 and any(value is not found[0][1] for _, value in found):
        raise ValueError(f"one cache at most must be passed, not {_listed([name for name, _ in found], 'and')}.")
    return found[0][1] if found else None


def named_cache(given: dict[str, Any], name: str) -> dict[str, Any]:
    """A call's arguments with the cache under `name`, which `cache_argument` found, and under no other.

    Raises:  ValueError as `cache_in` does
    """
    others = {other for other in CACHE_NAMES if other != name and other in given}
    cache = cache_in(given)
    if cache is None or (not others and given.get(name) is cache):
        return {key: value for key, value in given.items() if key not in others} if others else given
    kept = {key: value for key, value in given.items() if key not in others and value is not cache}
    return {**kept, name: cache}


def cache_of_output(output: Any) -> Any:
    """The cache in what a forward or `generate` returned, an output with names or a tuple; None if there is none."""
    if not isinstance(output, Mapping):
        items = output if isinstance(output, tuple) else ()
        return next((item for item in items if is_cache(item)), None)
    return cache_in(dict(output.items()))  # a plain one: an output of transformers warns when asked for an old name


def is_cache(value: Any) -> bool:
    """Whether a value is a cache of transformers, or works as one."""
    return hasattr(value, "get_seq_length") and hasattr(value, "update")


def require_arguments(forward: Callable[..., Any], names: tuple[str, ...], owner: str) -> None:
    """Refuse a forward that does not take these arguments, because it would drop or misread them.

    Raises:  ValueError naming the ones that it lacks
    """
    parameters = inspect.signature(forward).parameters
    if lacking := [name for name in names if name not in parameters]:
        raise ValueError(f"the forward of {owner} (transformers {release()}) must take {_listed(lacking, 'and')}.")


def _listed(names: Any, word: str = "or") -> str:
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else str(last)
