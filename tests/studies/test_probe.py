"""The probe and the bootstrap on cases with known answers."""

from __future__ import annotations

import pytest
import torch

from salience.data.scene_pictures import COLOURS, Item
from salience.studies.bootstrap import interval
from salience.studies.probe import fit_probe, majority_line, named_share, pair_labels


def _item(digit: int, colour: str) -> Item:
    return Item(digit=digit, colour=colour, box=(0, 0, 1, 1))


def test_pair_labels() -> None:
    labels = pair_labels([[_item(0, COLOURS[0]), _item(9, COLOURS[-1])], [_item(1, COLOURS[0])]])
    assert labels.shape == (2, 80)
    assert labels[0].nonzero().flatten().tolist() == [0, 79]
    assert labels[1].nonzero().flatten().tolist() == [len(COLOURS)]


def test_named_share_is_of_as_many_as_there_are() -> None:
    labels = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 1]])
    ratings = torch.tensor([[0.9, 0.1, 0.5, 0.0], [0, 0, 0.1, 0.2]])
    assert named_share(ratings, labels) == pytest.approx((1 / 2 + 1) / 2)


def test_majority_line_names_the_commonest() -> None:
    train = torch.tensor([[1.0, 0, 1], [1, 0, 0], [1, 1, 0], [1, 0, 1]])
    assert majority_line(train, torch.tensor([[1.0, 0, 0], [0, 1, 1]])) == pytest.approx((1 + 1 / 2) / 2)


def test_a_probe_reads_what_is_there_and_finds_nothing_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(400, 80, dtype=torch.float64)
    labels.scatter_(1, torch.rand(400, 80, generator=generator).argsort(1)[:, :4], 1.0)
    told = labels.float() @ torch.randn(80, 96, generator=generator) + 0.1 * torch.randn(400, 96, generator=generator)
    noise = torch.randn(400, 96, generator=generator)
    reached = [named_share(fit_probe(x[:300], labels[:300]).rate(x[300:]), labels[300:]) for x in (told, noise)]
    assert reached[0] > 0.95
    # Chance is 4 of 80; 100 pictures x 4 names scatter around it by about .011, so .15 is far off.
    assert reached[1] < 0.15


def test_the_interval_resamples_pictures_and_not_questions() -> None:
    # Ten pictures of 100 questions, each all right or all wrong: 1,000 questions, but only ten independent things.
    picture = torch.arange(10).repeat_interleave(100)
    low, high = interval(picture < 5, picture)
    # Resampling ten fair pictures: a standard error of sqrt(.25 / 10) = .158, so 95 % is about .5 -+ .31. Resampling
    # questions would give .5 -+ .03.
    assert 0.15 <= low <= 0.25 and 0.75 <= high <= 0.85


def test_a_picture_counts_with_its_questions() -> None:
    picture = torch.tensor([0] * 9 + [1])
    correct = torch.tensor([True] * 9 + [False])
    # Draws of two pictures: both the first (1), both the second (0), or one of each (9 of 10 right).
    assert interval(correct, picture) == (0.0, 1.0)
    assert interval(correct[:9], picture[:9]) == (1.0, 1.0)


def test_the_interval_is_seeded_and_checked() -> None:
    picture = torch.arange(20)
    correct = picture % 3 == 0
    assert interval(correct, picture, seed=3) == interval(correct, picture, seed=3)
    with pytest.raises(ValueError, match="level"):
        interval(correct, picture, level=1.0)
    with pytest.raises(ValueError, match="at least one question"):
        interval(correct[:0], picture[:0])
