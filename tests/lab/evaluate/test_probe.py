"""The probe and the bootstrap on cases with known answers."""

from __future__ import annotations

import pytest
import torch

from salience.lab.data.scene_pictures import COLOURS, Item
from salience.lab.evaluate.bootstrap import interval
from salience.lab.evaluate.probe import fit_probe, majority_line, named_share, pair_labels


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


def _scenes(pictures: int, background: int, *, told: bool, seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Pictures of 4 items, each two tokens that carry its digit and colour, among background tokens of equal size."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(18, 24, generator=torch.Generator().manual_seed(99))
    ground = torch.randn(6, 24, generator=torch.Generator().manual_seed(98))
    labels = torch.zeros(pictures, 80, dtype=torch.float64)
    labels.scatter_(1, torch.rand(pictures, 80, generator=generator).argsort(1)[:, :4], 1.0)
    tokens = []
    for row in labels:
        pairs = row.nonzero().flatten().repeat(2)
        items = codes[pairs // 8] + codes[10 + pairs % 8]
        rest = ground[torch.randint(6, (background,), generator=generator)]
        both = torch.cat([items if told else items[torch.randperm(8, generator=generator)] * 0, rest])
        tokens.append(both + 0.3 * torch.randn(both.shape, generator=generator))
    return tokens, labels


def _reads(background: int, *, told: bool = True) -> float:
    tokens, labels = _scenes(300, background, told=told, seed=0)
    test, there = _scenes(60, background, told=told, seed=1)
    return named_share(fit_probe(tokens, labels).rate(test), there)


def test_a_probe_reads_items_on_new_pictures_and_finds_nothing_in_noise() -> None:
    assert _reads(32) > 0.9
    # Chance is 4 of 80; 60 pictures x 4 names scatter around it by about .014, so .15 is far off.
    assert _reads(32, told=False) < 0.15


def test_background_tokens_do_not_dilute_what_a_probe_reads() -> None:
    # 8 item tokens among 120: a linear probe on the mean of all tokens reads .25 here, and "gains" when they go.
    assert _reads(120) > 0.9


def test_a_probe_loses_what_pruning_takes() -> None:
    tokens, labels = _scenes(300, 32, told=True, seed=0)
    test, there = _scenes(60, 32, told=True, seed=1)
    kept = [slice(0, 2), slice(4, 6)]  # the first token of items 0, 1 and the second of items 0, 1: two of four items

    def left(pictures: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.cat([one[kept[0]], one[kept[1]], one[8:]]) for one in pictures]

    reached = named_share(fit_probe(left(tokens), labels).rate(left(test)), there)
    # Two of the four items are there to read, and chance adds 2 of the 78 other pairs.
    assert 0.45 < reached < 0.56


def test_a_probe_ignores_padding_and_is_seeded() -> None:
    tokens, labels = _scenes(40, 12, told=True, seed=0)
    ragged = [one[: 14 + picture % 7] for picture, one in enumerate(tokens)]  # some lose background tokens
    probe = fit_probe(ragged, labels)
    assert torch.equal(probe.rate(ragged), fit_probe(ragged, labels).rate(ragged))
    alone = torch.cat([probe.rate([one]) for one in ragged])
    # The same sums in another order, in float32.
    torch.testing.assert_close(probe.rate(ragged), alone, rtol=1e-4, atol=1e-4)


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
    assert interval(correct, picture) == interval(correct, picture)
    with pytest.raises(ValueError, match="at least one question"):
        interval(correct[:0], picture[:0])
