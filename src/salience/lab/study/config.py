"""Configuration of the study: a scorer fitted anew, a trade-off, and comparisons of sequence models.

The comparisons answer whether the second direction pays. One task needs it: a column of a strip of digits is told by
the columns on both sides. One does not: a whole picture's class is told by all of its patches in any order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from salience.lab.compare.config import LENGTHS, CompareConfig
from salience.lab.fit.config import FitConfig
from salience.lab.tradeoff.config import TradeoffConfig

MODELS = ("mamba", "bimamba", "transformer")
_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Configuration of the study.

    fit: of the new scorer and of its shuffled control   tradeoff: of the comparison of pruning methods
    compare: of the comparisons of sequence models, one a task
    """

    fit: FitConfig = field(default_factory=FitConfig)
    tradeoff: TradeoffConfig = field(default_factory=TradeoffConfig)
    compare: tuple[CompareConfig, ...] = ()

    @staticmethod
    def of(*, quick: bool = False, seed: int = 0) -> StudyConfig:
        """Return the whole study, or `quick`: the same path on few pictures, which measures nothing."""
        if quick:
            fit = FitConfig.quick(seed=seed + 10)
            tradeoff = TradeoffConfig.quick(seed=seed)
        else:
            # Half of the default of `salience fit`: as good on validation pictures, to within a seed's spread.
            fit = FitConfig(pictures=160, seed=seed + 10)
            tradeoff = TradeoffConfig(seed=seed)
        return StudyConfig(fit=fit, tradeoff=tradeoff, compare=comparisons(quick=quick, seed=seed))


def comparisons(*, quick: bool = False, seed: int = 0) -> tuple[CompareConfig, ...]:
    """Return one comparison for each task; the first also times inference. quick: the same path on few examples"""
    if quick:
        small = CompareConfig(models=MODELS, seeds=1, epochs=1, width=16, lengths=(256,), rounds=1, seed=seed)
        return (
            replace(small, task="digit-tagging:epoch=32,test=16"),
            replace(small, task="digits49:train=32,test=16", lengths=()),
        )
    processes = min(os.cpu_count() or 1, _SEEDS * len(MODELS))
    whole = CompareConfig(
        models=MODELS, seeds=_SEEDS, width=32, rates=(4e-3,), lengths=LENGTHS[:-1], rounds=5, processes=processes,
        threads=1, seed=seed,
    )  # fmt: skip
    return (
        replace(whole, task="digit-tagging:epoch=800", batch=16, control=True),
        replace(whole, task="digits49:train=3000", lengths=()),
    )
