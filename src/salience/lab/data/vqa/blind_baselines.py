"""Baselines without the picture: the commonest answer of all, and the commonest answer to the question."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from salience.lab.data.vqa.sample import VqaSample

Score = Callable[[VqaSample, str], float]
_Table = dict[str, Counter[str]]


@dataclass(frozen=True, kw_only=True)
class VqaBaselines:
    """Scores of each sample. learnt_from: the questions that the commonest answers come from"""

    majority: tuple[float, ...]
    question_only: tuple[float, ...]
    learnt_from: str


def vqa_baselines(
    samples: Sequence[VqaSample], train: Sequence[VqaSample], score: Score, *, pool: Sequence[VqaSample] = ()
) -> VqaBaselines:
    """Score both baselines on `samples`.

    The question-only answer is the commonest training answer to the same words, else to the same first two words, else
    of all. Without a training split, the other pictures of `pool` (or of `samples`) are used; never the picture's own
    questions.
    """
    pool = pool or samples
    table = _counted(train or pool)
    own = {} if train else _by_picture(pool)
    majority, question_only = [], []
    for sample in samples:
        without = own.get(sample.picture, {})
        majority.append(score(sample, _commonest(table, without, [""])))
        question_only.append(score(sample, _commonest(table, without, _keys(sample.question))))
    source = (
        f"{len(train)} training questions" if train else "the other pictures' questions (there is no training split)"
    )
    return VqaBaselines(majority=tuple(majority), question_only=tuple(question_only), learnt_from=source)


def _keys(question: str) -> list[str]:
    """Return the keys of a question, the most specific first."""
    words = question.lower().rstrip(" ?").split()
    return [" ".join(words) + "?", " ".join(words[:2]) + " ...", ""]


def _counted(samples: Sequence[VqaSample]) -> _Table:
    table: _Table = defaultdict(Counter)
    for sample in samples:
        for key in _keys(sample.question):
            table[key][sample.answer] += 1
    return table


def _by_picture(samples: Sequence[VqaSample]) -> dict[int, _Table]:
    groups: dict[int, list[VqaSample]] = defaultdict(list)
    for sample in samples:
        groups[sample.picture].append(sample)
    return {picture: _counted(group) for picture, group in groups.items()}


def _commonest(table: _Table, without: _Table, keys: Sequence[str]) -> str:
    """Return the commonest answer under the first key that has one, else an empty text."""
    for key in keys:
        counts, gone = table.get(key, Counter()), without.get(key, Counter())
        left = {answer: count - gone[answer] for answer, count in counts.items() if count > gone[answer]}
        if left:
            return max(left, key=lambda answer: left[answer])
    return ""
