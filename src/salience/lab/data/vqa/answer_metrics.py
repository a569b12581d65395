"""Scores of an answer, exact match and VQA accuracy, and baselines without the picture."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from salience.lab.data.readers.text_files import as_seen
from salience.lab.data.vqa.sample import VqaSample

Score = Callable[[VqaSample, str], float]
_Table = dict[str, Counter[str]]

_ARTICLES = {"a", "an", "the"}
_NUMBERS = dict(
    zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True), none="0"
)
#: Fewest answers of a question for `vqa_accuracy`: an answer that three others gave counts as right.
LEAST = 4


def exact_match(said: str, answers: Sequence[str]) -> float:
    """Return 1 for one of the answers, without regard to case, outer spaces and the last full stop; else 0."""
    return float(_plain(said) in {_plain(answer) for answer in answers})


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """Return the mean of min(1, equal answers of the others / 3) over all ways to leave one person out.

    Source: Antol et al., arXiv:1505.00468, and the evaluation of VQAv2. Deviation: apostrophes are dropped, where the
    official script adds missing ones. This differs only for answers that differ in an apostrophe alone.

    Raises:  ValueError for fewer than four answers
    """
    if len(answers) < LEAST:
        raise ValueError(f"answers must be at least {LEAST}, not {len(answers)}.")
    mine = normalised(said)
    same = [normalised(answer) == mine for answer in answers]
    total = sum(same)
    return sum(min(1.0, (total - own) / 3) for own in same) / len(same)


def normalised(text: str) -> str:
    """Return the text in lower case, without articles and punctuation, with number words as digits."""
    text = re.sub(r"(?<=\d),(?=\d)", "", as_seen(text).lower().replace("'", ""))
    text = re.sub(r"(?<!\d)[.:]|[.:](?!\d)", " ", text)
    text = "".join(" " if letter in string.punctuation and letter not in ".:" else letter for letter in text)
    return " ".join(_NUMBERS.get(word, word) for word in text.split() if word not in _ARTICLES)


def _plain(text: str) -> str:
    return as_seen(text).lower().rstrip(".")


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
