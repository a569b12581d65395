"""The rows of a trade-off: every method at every ratio, each finished cell stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from salience.core.progress import Stages
from salience.core.record import ROW_COLUMNS
from salience.pruning.budget import Budget
from salience.studies.arms import Arm, Ranking
from salience.studies.cells import Cells
from salience.studies.quality import Quality
from salience.studies.tradeoff_config import TradeoffConfig

Row = dict[str, Any]
Costs = Mapping[tuple[str, float], Mapping[str, Any]]


def all_rows(
    quality: Quality,
    config: TradeoffConfig,
    arms: Sequence[Arm],
    whole: Mapping[str, Any],
    costs: Costs,
    cells: Cells,
    bars: Stages,
) -> list[Row]:
    """Every arm's rows, then those of the oracle of the items asked about. `whole`: the quality with all tokens."""
    ceiling, n = config.wants("oracle-question"), quality.test.grid.n
    pruned = sum(keep < 1 for keep in config.keeps)
    rows = []
    with bars.stage("methods x ratios", (len(arms) + ceiling) * pruned) as tick:

        def cell(name: str, seed: int, keep: float, cost: str, compute: Callable[[], Row]) -> None:
            found: Mapping[str, Any] = whole
            if keep < 1:
                found = cells.get(f"{name}-{seed}-{keep}", compute)
                tick()
            unpriced = {"tokens_kept": Budget(keep=keep).count(n)}
            rows.append(_row(name, keep, seed, found, costs.get((cost, keep), unpriced)))

        for arm in arms:
            cut = _Cut(quality, arm)
            for keep in config.keeps:
                cell(arm.name, arm.seed, keep, arm.cost, partial(cut.row, keep))
        for keep in config.keeps if ceiling else ():
            measure = partial(quality.ceiling, keep, config.ceiling_pictures)
            cell("oracle-question", config.seed, keep, "oracle", measure)
    return rows


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
