"""The scenes task: what is asked can be seen, what was drawn is what is labelled, and the splits share nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salience.lab import data
from salience.lab.data import scenes
from salience.lab.data.readers.mnist import split_digits
from salience.lab.data.scene_pictures import (
    CELL,
    COLOURS,
    DIGITS_PER_CLASS,
    PALETTE,
    PHOTOGRAPHS,
    SIDE,
    Item,
    Layout,
    draw_picture,
    lay_out,
)
from salience.lab.data.scenes import KINDS, SIDES, ask_about


def _items(*described: tuple[int, str, int, int]) -> list[Item]:
    return [Item(digit=d, colour=c, box=(x - 10, y - 15, x + 10, y + 15)) for d, c, x, y in described]


def test_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    first, again = (data.load("scenes", split="val", n=6, seed=3, questions=3) for _ in range(2))
    other = data.load("scenes", split="val", n=6, seed=4, questions=3)
    assert [(s.question, s.answer, s.boxes) for s in first] == [(s.question, s.answer, s.boxes) for s in again]
    assert all(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.asarray(first[0].image), np.asarray(other[0].image))


def test_splits_share_no_photograph_and_no_digit() -> None:
    names = [name for group in PHOTOGRAPHS.values() for name in group]
    assert len(names) == len(set(names))
    seen = [{glyph.tobytes() for glyph in found.images} for found in split_digits(**DIGITS_PER_CLASS).values()]
    assert not (seen[0] & seen[1]) and not (seen[0] & seen[2]) and not (seen[1] & seen[2])


def test_a_sample_is_a_whole_picture_with_boxes_inside_and_apart() -> None:
    for sample in data.load("scenes", split="test", n=8, seed=0):
        assert sample.image.size == (SIDE, SIDE) and sample.image.mode == "RGB"
        assert 4 <= len(sample.boxes) <= 8
        for n, (x, y, r, b) in enumerate(sample.boxes):
            assert 0 <= x < r <= SIDE and 0 <= y < b <= SIDE
            for u, v, s, t in sample.boxes[n + 1 :]:
                assert x > s or r < u or y > t or b < v


def test_an_item_is_painted_in_its_colour_where_its_box_is() -> None:
    picture = draw_picture(np.random.default_rng(0), "train")
    pixels = np.asarray(picture.image).astype(float)
    for item, ink in zip(picture.items, picture.ink, strict=True):
        x, y, r, b = item.box
        inside = pixels[y:b, x:r].reshape(-1, 3)
        # the shade is the palette's with a jitter of standard deviation 8 a channel; 60 is over four of those, all told
        assert np.linalg.norm(inside - np.asarray(PALETTE[item.colour]), axis=1).min() < 60
        rows, columns = np.nonzero(ink)
        assert rows.min() >= y // CELL and rows.max() <= (b - 1) // CELL
        assert columns.min() >= x // CELL and columns.max() <= (r - 1) // CELL


def test_questions_are_answered_by_the_items() -> None:
    items = _items((7, "red", 60, 100), (3, "blue", 200, 105), (3, "pink", 60, 250))
    asked = ask_about(items, np.random.default_rng(0), 100)
    by_text = {q.text: q for q in asked}
    assert by_text["which digit is red?"].answer == "7"
    assert by_text["which colour is the 7?"].answer == "red"
    assert "which colour is the 3?" not in by_text  # two of them
    assert by_text["how many digits are there?"].answer == "3"
    assert by_text["which digit is right of the red one?"].answer == "3"
    assert by_text["which digit is right of the red one?"].about == (0, 1)
    assert by_text["which digit is below the red one?"].about == (0, 2)
    assert "which digit is left of the red one?" not in by_text
    for question in asked:
        if question.kind == "is-there":
            colour, digit = question.text.rstrip("?").split()[-2:]
            there = any(i.colour == colour and str(i.digit) == digit for i in items)
            assert question.answer == ("yes" if there else "no")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30))
def test_questions_are_distinct_and_relations_unambiguous(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    items, _ = lay_out(rng, "train", Layout())
    asked = ask_about(items, rng, n)
    assert 1 <= len(asked) <= n
    assert len({q.text for q in asked if q.kind != "is-there"}) == len([q for q in asked if q.kind != "is-there"])
    for question in asked:
        if question.kind == "relation":
            base, other = (items[i] for i in question.about)
            x, y = next(way for side, way in SIDES.items() if f" {side} " in question.text)
            ahead = np.subtract(other.centre, base.centre)
            assert ahead @ np.array([x, y]) > 0.8 * np.linalg.norm(ahead)  # cos 35 degrees is .819
            assert question.answer == str(other.digit)


def test_kinds_take_turns_over_single_questions() -> None:
    kinds = [sample.kind for sample in data.load("scenes", split="val", n=10, seed=0)]
    assert set(kinds) == set(KINDS)


def test_questions_of_a_picture_share_it() -> None:
    samples = data.load("scenes", split="val", n=20, seed=0, questions=10)
    assert [s.picture for s in samples] == [0] * 10 + [1] * 10
    assert sum(s.kind == "count" for s in samples) == 2


def test_colours_differ_within_a_picture() -> None:
    for seed in range(20):
        items, _ = lay_out(np.random.default_rng(seed), "test", Layout())
        assert len({i.colour for i in items}) == len(items) and {i.colour for i in items} <= set(COLOURS)


def test_baselines_know_only_training_answers() -> None:
    samples = data.load("scenes", split="val", n=160, seed=0, questions=16)
    table = scenes.baselines(samples)
    told = scenes.question_only(samples)
    assert table["question_only"]["all"] == pytest.approx(sum(told) / len(told))
    assert set(table) == {"majority", "question_only"}
    assert set(table["majority"]) == {*KINDS, "all"}
    assert table["question_only"]["all"] < 0.4  # far from what looking gives; .24 was seen
    assert all(0 <= value <= 1 for row in table.values() for value in row.values())


def test_yes_and_no_are_about_as_frequent() -> None:
    answers = [
        s.answer for s in data.load("scenes", split="train", n=480, seed=0, questions=16) if s.kind == "is-there"
    ]
    share = answers.count("yes") / len(answers)
    # a fair coin over 130 answers stays within 3.5 standard deviations, .15, of a half
    assert abs(share - 0.5) < 0.15


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task": "poems", "split": "val", "n": 1}, "task must be one of scenes, not 'poems'"),
        ({"task": "scenes", "split": "dev", "n": 1}, "split must be one of train, val, test, not 'dev'"),
        ({"task": "scenes", "split": "val", "n": 0}, "n and questions must be at least 1"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], said: str) -> None:
    task = arguments.pop("task")
    with pytest.raises(ValueError, match=said):
        data.load(task, **arguments)  # type: ignore[arg-type]
