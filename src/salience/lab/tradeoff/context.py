"""Run context of a trade-off: everything that its parts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from salience.core.progress import ProgressBars
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff.config import TradeoffConfig
from salience.vlm.families import Adapter
from salience.vlm.scorers.scorer import Scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """Model, configuration and services of one run.

    name: of the model in the record   out: folder of pictures, None stores none
    cache: finished results, shared by the processes of the run   scorers: by seed
    shuffled: a scorer fitted to shuffled targets
    """

    adapter: Adapter
    processor: Any
    name: str
    config: TradeoffConfig
    cache: ResultCache
    bars: ProgressBars
    out: Path | None = None
    scorers: Mapping[int, Scorer] = field(default_factory=dict)
    shuffled: Scorer | None = None
