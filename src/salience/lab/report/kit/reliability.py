"""Reliability of a run: a quick run has no quotable result, a run on a busy machine no quotable time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from salience.core.environment import busy_because


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """quick: only to see that every step works   busy: why its times can't be relied on, in a sentence"""

    quick: bool = False
    busy: str | None = None

    @property
    def title(self) -> str | None:
        """First words of a title; None where the run may make a headline."""
        return "Quick run" if self.quick else "Busy machine" if self.busy else None

    @property
    def times(self) -> bool:
        """Whether anything may be concluded from its times."""
        return not self.quick and not self.busy


def reliability(config: Mapping[str, Any], environment: Mapping[str, Any]) -> Reliability:
    """Return the reliability of one record in its document."""
    if "busy_because" in environment:
        busy = environment["busy_because"]
    else:  # documents of former versions
        busy = busy_because(environment, environment.get("cores") or 1)
    return Reliability(quick=bool(config.get("quick")), busy=busy or None)


def notices(found: Reliability) -> list[str]:
    """Return the notices for the top of the page."""
    told = []
    if found.quick:
        told.append(
            "This is a quick run: it shows that every step works. It saw too little to conclude anything from, so no "
            "finding is drawn from it, and none of its numbers is to be quoted."
        )
    if found.busy:
        told.append(f"The machine was busy during this run. {found.busy} Its times are not to be quoted.")
    return told
