"""Configuration and environment as (name, text) pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salience.lab.report.kit.words import MINUS

#: Names of settings that say less than these words.
_NAMES = {
    "ceiling_pictures": "pictures of the question\u2019s oracle",
    "ceiling_full_accuracy": "accuracy with all tokens on those pictures",
    "floor_ms": "a fixed job, ms",
    "floor_spread": "that job\u2019s slow end over its fast end",
    "busy_because": "busy machine",
}
#: Settings with a place of their own on the page.
_ELSEWHERE = ("keeps", "methods")


def facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of everything short in a configuration or an environment; null reads 'not recorded'."""
    found = []
    for name, value in mapping.items():
        if name not in _ELSEWHERE and not isinstance(value, Mapping):
            text = "no" if name == "busy_because" and value is None else plain(value)
            found.append((_NAMES.get(name, name.replace("_", " ")), text))
    return found


def plain(value: Any) -> str:
    """Return a setting's value as text."""
    if value is None:
        return "not recorded"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", MINUS)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(item) for item in value) if value else "none"
    return str(value)
