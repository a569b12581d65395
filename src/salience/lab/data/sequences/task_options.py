"""Options in a task's name, as in "selective-copying:tokens=16,length=4096"."""

from __future__ import annotations

from collections.abc import Mapping

#: Options of a task with their values; the defaults give the types.
Options = Mapping[str, int | str]


def read_options(name: str, text: str, allowed: Options) -> dict[str, int | str]:
    """Read "key=value,key=value", each value as the type of its default.

    Raises:  ValueError for an unknown key or a value of another type
    """
    found: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{name}: an option is written key=value, but {part!r} came; {_known(allowed)}.")
        found[key.strip()] = value.strip()
    return check_options(name, found, allowed)


def check_options(name: str, given: Mapping[str, object], allowed: Options) -> dict[str, int | str]:
    """Return the options with the types of their defaults. Raises ValueError as `read_options` does."""
    for key in given:
        if key not in allowed:
            raise ValueError(f"{name} has no option {key!r}; {_known(allowed)}.")
    return {key: _typed(name, key, value, allowed[key]) for key, value in given.items()}


def written(name: str, given: Options, allowed: Options) -> str:
    """Return the name with the options that differ from their defaults."""
    other = [f"{key}={value}" for key, value in sorted(given.items()) if value != allowed[key]]
    return f"{name}:{','.join(other)}" if other else name


def between(name: str, option: str, value: int, low: int, high: int) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name}: {option} is {value:,}, but must be from {low:,} to {high:,}.")


def _known(allowed: Options) -> str:
    return f"its options are {', '.join(sorted(allowed))}" if allowed else "it has no options"


def _typed(name: str, key: str, value: object, default: int | str) -> int | str:
    if isinstance(default, int):
        try:
            if isinstance(value, bool | float):
                raise ValueError
            return int(str(value).replace("_", "")) if not isinstance(value, int) else value
        except ValueError:
            raise ValueError(f"{name}: {key} must be a whole number, not {value!r}.") from None
    return str(value)
