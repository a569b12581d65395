"""Checks of numbers in the configurations of studies."""

from __future__ import annotations

import math
from collections.abc import Iterable


def require_whole(config: object, names: Iterable[str], least: int) -> None:
    """Raise ValueError unless the named fields are whole numbers of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")


def require_positive(config: object, names: Iterable[str]) -> None:
    """Raise ValueError unless the named fields are finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a number above 0, not {value!r}.")
