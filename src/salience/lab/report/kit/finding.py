"""A finding: what the page says in a sentence or two."""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "plain", "bad"]


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A small table below a finding."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A short lead that can be read alone, then the detail; `bad` is for what did not work."""

    tone: Tone
    lead: str
    text: str
    numbers: Numbers | None = None
