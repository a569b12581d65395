"""Refusal of a dependency's release that the tests did not run on. Standard library only."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReleaseBounds:
    """First and last minor release of a package that the tests passed on; `pyproject.toml` has the same bounds.

    Args:    risk: what another release can do, the end of a sentence that begins "and"
    """

    package: str
    oldest: tuple[int, int]
    newest: tuple[int, int]
    risk: str

    @property
    def variable(self) -> str:
        """Environment variable that allows a release outside the bounds."""
        return f"SALIENCE_UNTESTED_{self.package.upper()}"

    def refusal(self, release: str) -> str | None:
        """A sentence for the error, or None if `release` is inside the bounds, unknown or allowed by the variable."""
        numbers = tuple(map(int, re.findall(r"\d+", release)[:2]))
        if not numbers or self.oldest <= numbers <= self.newest or os.environ.get(self.variable, "") not in ("", "0"):
            return None
        oldest, newest = (".".join(map(str, bound)) for bound in (self.oldest, self.newest))
        after = f"{self.newest[0]}.{self.newest[1] + 1}"
        return (
            f"{self.package} {release} was not tested with this salience, {oldest} to {newest} were, and {self.risk}: "
            f"pip install '{self.package}>={oldest},<{after}', or set {self.variable}=1 to try it."
        )
