"""Options in a task's name, as in "selective-copying:tokens=16,length=4096"."""

from __future__ import annotations

from collections.abc import Mapping

#: Option -> default of a text, or default, lowest and highest value of a whole number.
Options = Mapping[str, str | tuple[int, int, int]]
Values = dict[str, int | str]


def read_options(task: str, text: str, given: Mapping[str, object], allowed: Options) -> Values:
    """Return the value of every option. text: "key=value,key=value"   given: further options

    Raises:  ValueError for an unknown option, a value of another type and a number outside its limits
    """
    known = f"its options are {', '.join(sorted(allowed))}" if allowed else "it has no options"
    found: dict[str, object] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{task}: an option is written key=value, but {part!r} came; {known}.")
        found[key.strip()] = value.strip()
    found |= given
    for key in found:
        if key not in allowed:
            raise ValueError(f"{task} has no option {key!r}; {known}.")
    return _defaults(allowed) | {key: _checked(task, key, value, allowed[key]) for key, value in found.items()}


def written(task: str, values: Values, allowed: Options) -> str:
    """Return the task's name with the options that differ from their defaults."""
    defaults = _defaults(allowed)
    other = [f"{key}={value}" for key, value in sorted(values.items()) if value != defaults[key]]
    return f"{task}:{','.join(other)}" if other else task


def between(task: str, option: str, value: int, low: int, high: int) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{task}: {option} is {value:,}, but must be from {low:,} to {high:,}.")


def _defaults(allowed: Options) -> Values:
    return {key: rule if isinstance(rule, str) else rule[0] for key, rule in allowed.items()}


def _checked(task: str, key: str, value: object, rule: str | tuple[int, int, int]) -> int | str:
    if isinstance(rule, str):
        return str(value)
    try:
        if isinstance(value, bool | float):
            raise ValueError
        number = int(str(value).replace("_", ""))
    except ValueError:
        raise ValueError(f"{task}: {key} must be a whole number, not {value!r}.") from None
    between(task, key, number, *rule[1:])
    return number
