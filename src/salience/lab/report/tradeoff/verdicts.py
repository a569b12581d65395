"""Verdicts: which of two methods is better at a ratio, from the difference on the same questions.

Every sentence that ranks two methods asks here, so that no two sentences disagree. Where the results hold no such
difference there is no verdict, however far apart the two accuracies are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from salience.core.result_tables import ALL_TOKENS, AccuracyDifference

Verdict = Literal["better", "worse", "level"]

RANDOM = "random"
#: A difference further than this from that of the accuracies in the rows is of other questions or broken.
TRUE_TO_ROWS = 0.01


def verdict_of(line: AccuracyDifference) -> Verdict:
    """Return "level" where the interval holds zero."""
    return "better" if line.low > 0 else "worse" if line.high < 0 else "level"


class Verdicts:
    """The differences of one record, each also from the other method's side.

    Args:    lines: of the record   accuracies: (method, keep) -> mean accuracy   full: accuracy with all tokens
    """

    def __init__(
        self,
        lines: Iterable[AccuracyDifference],
        accuracies: Mapping[tuple[str, float], float | None],
        full: float | None,
    ) -> None:
        self.known: dict[tuple[str, float, str], AccuracyDifference] = {}
        #: How many lines contradict the rows. They are not used: a sentence must agree with the table below it.
        self.refused = 0
        for line in lines:
            own = accuracies.get((line.method, line.keep))
            other = full if line.against == ALL_TOKENS else accuracies.get((line.against, line.keep))
            if own is not None and other is not None and abs(line.difference - (own - other)) > TRUE_TO_ROWS:
                self.refused += 1
                continue
            reverse = replace(
                line, method=line.against, against=line.method, difference=-line.difference, low=-line.high,
                high=-line.low, by_seed=(),
            )  # fmt: skip
            for each in (line, reverse):
                self.known.setdefault((each.method, each.keep, each.against), each)

    def of(self, method: str, keep: float | None, against: str) -> AccuracyDifference | None:
        """Return the difference, or None where it was not measured."""
        return None if keep is None else self.known.get((method, keep, against))

    def verdict(self, method: str, keep: float | None, against: str) -> Verdict | None:
        """Return the verdict on a method against another at a ratio; None where it was not measured."""
        found = self.of(method, keep, against)
        return None if found is None else verdict_of(found)

    def keeps(self, method: str, against: str, verdict: Verdict) -> list[float]:
        """Return the ratios with that verdict, descending."""
        lines = [line for (own, _, other), line in self.known.items() if (own, other) == (method, against)]
        return sorted((line.keep for line in lines if verdict_of(line) == verdict), reverse=True)
