"""When an answer counts, under the names that everybody uses."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from salience.lab.data.readers.text_files import as_seen

_ARTICLES = {"a", "an", "the"}
_NUMBERS = dict(
    zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True), none="0"
)
#: Answers a question must have before `vqa_accuracy` means something: three who agree count as right.
LEAST = 4


def exact_match(said: str, answers: Sequence[str]) -> float:
    """1 when what was said is one of the answers, letter case, outer spaces and the last full stop aside; else 0."""
    return float(_plain(said) in {_plain(answer) for answer in answers})


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """Over all ways to leave one person out: min(1, others who said the same / 3), the mean.

    Source: Antol et al., arXiv:1505.00468, and the evaluation of VQAv2.  Deviation: apostrophes are dropped where the
    official script puts missing ones in, which is the same unless an answer differs in its apostrophe alone.

    Raises: ValueError for fewer than four answers, among which three can't agree
    """
    if len(answers) < LEAST:
        raise ValueError(f"answers must be at least {LEAST}, not {len(answers)}.")
    mine = normalised(said)
    same = [normalised(answer) == mine for answer in answers]
    total = sum(same)
    return sum(min(1.0, (total - own) / 3) for own in same) / len(same)


def normalised(text: str) -> str:
    """Lower case, no articles or punctuation, number words as digits."""
    text = re.sub(r"(?<=\d),(?=\d)", "", as_seen(text).lower().replace("'", ""))
    text = re.sub(r"(?<!\d)[.:]|[.:](?!\d)", " ", text)
    text = "".join(" " if letter in string.punctuation and letter not in ".:" else letter for letter in text)
    return " ".join(_NUMBERS.get(word, word) for word in text.split() if word not in _ARTICLES)


def _plain(text: str) -> str:
    return as_seen(text).lower().rstrip(".")
