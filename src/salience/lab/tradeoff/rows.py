"""The rows of a trade-off: every method at every ratio, each finished cell stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from salience.core.progress import ProgressBars
from salience.core.result_rows import ROW_COLUMNS
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.methods_under_test import Arm, Ranking
from salience.lab.tradeoff.quality import Quality
from salience.vlm.methods.budget import Budget

Row = dict[str, Any]
Costs = Mapping[tuple[str, float], Mapping[str, Any]]


def all_rows(
    quality: Quality,
    config: TradeoffConfig,
    arms: Sequence[Arm],
    whole: Mapping[str, Any],
    costs: Costs,
    cache: ResultCache,
    bars: ProgressBars,
) -> list[Row]:
    """Every arm's rows, then those of the oracle of the items asked about. `whole`: the quality with all tokens."""
    n, pruned = quality.test.grid.n, [keep for keep in config.keeps if keep < 1]
    lines = [(arm.name, arm.seed, arm.cost, _Cut(quality, arm).row) for arm in arms]
    if config.wants("oracle-question"):
        ceiling = partial(quality.ceiling, pictures=config.ceiling_pictures)
        lines.append(("oracle-question", config.seed, "oracle", ceiling))
    jobs = {_cell(name, seed, keep): partial(measure, keep) for name, seed, _, measure in lines for keep in pruned}
    mine = cache.claim(_cell(name, seed, keep) for keep in pruned for name, seed, _, _ in lines)
    with bars.bar("methods x ratios", len(mine)) as tick:
        found = cache.fill(jobs, mine, tick)
    return [
        _row(name, keep, seed, found.get(_cell(name, seed, keep), whole), costs.get((cost, keep), _unpriced(keep, n)))
        for name, seed, cost, _ in lines
        for keep in config.keeps
    ]


def _cell(name: str, seed: int, keep: float) -> str:
    return f"{name}-{seed}-{keep}"


def _unpriced(keep: float, n: int) -> Row:
    return {"tokens_kept": Budget(keep=keep).count(n)}


class _Cut:
    """One arm's quality; its scores are computed at the first ratio that is not stored, and serve the others."""

    def __init__(self, quality: Quality, arm: Arm) -> None:
        self.quality, self.arm = quality, arm
        self.rankings: list[Ranking] = []

    def row(self, keep: float) -> Row:
        if not self.rankings:
            pictures = [self.quality.test, *([] if self.quality.train is None else [self.quality.train])]
            self.rankings = [Ranking(self.arm.method(each), each) for each in pictures]
        cuts = [ranking.selections(keep) for ranking in self.rankings]
        seen = [ranking.visual(self.quality.adapter, cut) for ranking, cut in zip(self.rankings, cuts, strict=True)]
        test, *train = [[selection.kept for selection in cut] for cut in cuts]
        row = self.quality.row(test, train[0] if train else [], visual=seen[0], visual_train=seen[1] if train else None)
        if any(len(kept) != len(test[0]) for kept in test):  # it finds its own count, the budget is the most
            row["tokens_kept"] = sum(map(len, test)) / len(test)
        return row


def _row(method: str, keep: float, seed: int, quality: Mapping[str, Any], cost: Mapping[str, Any]) -> Row:
    """Columns in the schema's order, the further ones behind them."""
    values = {"method": method, "keep": keep, "seed": seed, **cost, **quality}
    order = [*ROW_COLUMNS["tradeoff"], *(key for key in values if key not in ROW_COLUMNS["tradeoff"])]
    return {key: values.get(key) for key in order}
