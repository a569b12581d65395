"""Ratios that sentences and figures single out: where the subject holds, where the choice of tokens shows."""

from __future__ import annotations

from salience.core.result_tables import ALL_TOKENS
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdicts import RANDOM

#: A method holds while its loss is surely no more than this share of what the picture brings: of the accuracy with all
#: tokens above that without the picture.
MARGIN = 0.05
#: An accuracy this far below that of all tokens has broken: ten points, but for what binary fractions add.
BROKEN = 0.10 - 1e-9


def holds(data: TradeoffData, method: str, keep: float) -> bool:
    """Whether the lower end of its difference from all tokens, on the same questions, is within MARGIN."""
    full, apart = data.full("accuracy"), data.verdicts.of(method, keep, ALL_TOKENS)
    without = max((accuracy for _, accuracy in data.baselines()), default=0.0)
    return full is not None and apart is not None and apart.low >= -MARGIN * (full - without)


def operating_keep(data: TradeoffData) -> float | None:
    """Return the smallest ratio at which the subject holds, there and at every larger one; None without one."""
    found = None
    for keep in data.pruned:
        if not holds(data, data.subject, keep):
            return found
        found = keep
    return found


def telling_keep(data: TradeoffData) -> float | None:
    """Return the largest ratio at which random tokens lose ten points, so that the choice shows; else the smallest."""
    full = data.full("accuracy")
    for keep in data.pruned:
        random = data.value(RANDOM, keep, "accuracy")
        if full is not None and random is not None and full - random >= BROKEN:
            return keep
    return data.pruned[-1] if data.pruned else None


def near_keep(data: TradeoffData, wanted: float) -> float | None:
    """Return the measured ratio below 1 nearest to the one wanted."""
    return min(data.pruned, key=lambda keep: abs(keep - wanted)) if data.pruned else None
