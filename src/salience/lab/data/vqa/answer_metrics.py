"""Scores of an answer: exact match and VQA accuracy."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from salience.lab.data.readers.text_files import as_seen

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
