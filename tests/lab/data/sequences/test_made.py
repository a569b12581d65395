"""Tasks that are made: what is asked can be told from what is shown, and from nothing less."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salience.lab.data.readers.mnist import split_digits
from salience.lab.data.sequences import load
from salience.lab.data.sequences.splits import IGNORE
from salience.lab.data.sequences.tasks import copying, induction, listops, tagging


@pytest.mark.parametrize("name", ["copying", "selective-copying"])
def test_what_is_to_be_copied_was_shown_in_that_order(name: str) -> None:
    task = load(name)
    batch = task.train.batch(torch.arange(200))
    assert batch.inputs.shape == (200, 128) and task.vocabulary == 14
    for shown, asked in zip(batch.inputs[:, :120], batch.targets, strict=True):
        data = shown[shown < 12]
        assert data.tolist() == asked[120:].tolist() and (asked[:120] == IGNORE).all()
        assert (shown[shown >= 12] == 12).all()
    assert (batch.inputs[:, 120:] == 13).all()
    at = (batch.inputs[:, :120] < 12).nonzero()[:, 1]
    if name == "copying":
        assert int(at.max()) == 7
    else:
        # 1,600 places over 120 steps: every tenth of them holds 160, deviation 12; five deviations
        assert np.abs(np.histogram(at, bins=10, range=(0, 120))[0] - 160).max() < 60


def test_the_published_size_on_request() -> None:
    task = load("selective-copying:tokens=16,length=4096,vocabulary=16")
    assert task.length == 4112 and task.chance == 1 / 14
    assert task.train.batch(torch.tensor([0])).targets[0, 4096:].min() >= 0
    assert task.name == "selective-copying:length=4096,tokens=16,vocabulary=16"


def test_made_by_hand() -> None:
    inputs, targets = copying.sequences(np.array([[3, 1]]), np.array([[1, 4]]), 5, 6)
    assert inputs.tolist() == [[4, 3, 4, 4, 1, 5, 5]] and targets[0, 5:].tolist() == [3, 1]
    inputs, targets = induction.sequences(np.array([[0, 1, 2, 3, 4, 5]]), np.array([3]), 9)
    assert inputs.tolist() == [[0, 1, 2, 8, 4, 8]] and targets.tolist() == [[IGNORE] * 5 + [4]]


def test_induction_asks_for_what_followed_the_special_token() -> None:
    task = load("induction")
    assert list(task.longer) == [512 << k for k in range(6)] and task.length == 256
    for split in (load("induction:times=1").train, task.test, task.longer[16384]):
        batch = split.batch(torch.arange(4))
        special = (batch.inputs == 15).nonzero()
        assert (batch.inputs == 15).sum(1).tolist() == [2] * 4
        for row in range(4):
            first, last = special[special[:, 0] == row, 1].tolist()
            assert last == split.length - 1
            assert int(batch.targets[row, -1]) == int(batch.inputs[row, first + 1]) != 15
        assert (batch.targets[:, :-1] == IGNORE).all()


def test_in_training_induction_asks_wherever_the_special_token_stands_again() -> None:
    task = load("induction:length=32,longest=64,times=5")
    batch = task.train.batch(torch.arange(200))
    special = batch.inputs == 15
    counts = special.sum(1)
    assert sorted(counts.unique().tolist()) == [2, 3, 4, 5, 6] and special[:, -1].all()
    for row in range(200):
        first, *others = special[row].nonzero()[:, 0].tolist()
        answer = int(batch.inputs[row, first + 1])
        assert answer != 15 and all(int(batch.inputs[row, at + 1]) == answer for at in others[:-1])
        assert (batch.targets[row] != IGNORE).nonzero()[:, 0].tolist() == others
        assert set(batch.targets[row, others].tolist()) == {answer}
    inputs, targets = induction.repeated(np.arange(8)[None], np.array([[False, True, True]]), 9)
    assert inputs.tolist() == [[0, 1, 8, 3, 8, 3, 6, 8]] and targets.tolist() == [
        [IGNORE] * 4 + [3] + [IGNORE] * 2 + [3]
    ]


def _value(tokens: list[str]) -> int:
    """A second way to evaluate: a stack."""
    stack: list[list[int | str]] = [[]]
    for token in tokens:
        if token in listops.OPERATORS:
            stack.append([token])
        elif token == "]":
            operator, *values = stack.pop()
            numbers = np.asarray(values)
            found = {
                "[MIN": numbers.min(),
                "[MAX": numbers.max(),
                "[MED": np.median(numbers),
                "[SM": numbers.sum() % 10,
            }
            stack[-1].append(int(found[str(operator)]))
        else:
            stack[-1].append(int(token))
    (answer,) = stack[0]
    return int(answer)


def test_listops_answers_follow_from_the_expression() -> None:
    text = "[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]".split()
    assert _value(text) == 5
    task = load("listops:train=300,test=50")
    batch = task.train.batch(torch.arange(300))
    assert batch.mask is not None
    for row, valid, answer in zip(batch.inputs, batch.mask, batch.targets, strict=True):
        tokens = [listops.VOCABULARY[i] for i in row[valid].tolist()]
        assert 20 <= len(tokens) <= 200 and _value(tokens) == int(answer)
    assert set(batch.targets.tolist()) == set(range(10))


def test_listops_keeps_to_its_depth_and_says_when_limits_are_impossible() -> None:
    task = load("listops:train=50,test=20,max_depth=3,max_args=4,min_length=5")
    batch = task.train.batch(torch.arange(50))
    opened = ((batch.inputs >= 10) & (batch.inputs < listops.CLOSE)).long() - (batch.inputs == listops.CLOSE).long()
    assert int(opened.cumsum(1).max()) <= 2  # the innermost level of three is a digit
    with pytest.raises(ValueError, match="expressions in a row were not from 150 to 150 tokens"):
        load("listops:max_depth=2,max_args=3,min_length=150,max_length=150")


def test_a_strip_is_five_digits_side_by_side_with_a_label_a_column() -> None:
    images = np.stack([split_digits()["test"].images[[0, 150, 990, 500, 20]]])
    columns = tagging.strips(images)
    assert columns.shape == (1, 140, 28)
    assert np.array_equal(columns[0, 28:56].T, images[0, 1])  # upright again when columns stand side by side
    batch = load("digit-tagging").test.batch(torch.arange(50))
    targets = batch.targets.view(50, 5, 28)
    assert (targets == targets[:, :, :1]).all()  # one label from a digit's first column to its last
    ink = batch.inputs.amax(2) > batch.inputs.min()
    share = float((~ink).float().mean())
    assert 0.2 < share < 0.6  # the blank columns, whose labels only their neighbours tell; .41 was seen


def _columns(split: str, reach: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each column with `reach` columns before and after it, and its label."""
    task = load("digit-tagging")
    batch = getattr(task, split).batch(torch.arange(300 if split == "train" else 150))
    before, after = reach
    padded = torch.nn.functional.pad(batch.inputs, (0, 0, before, after))
    seen = torch.cat([padded[:, k : k + 140] for k in range(before + after + 1)], dim=2)
    return seen.flatten(0, 1), batch.targets.flatten()


def test_single_columns_say_little_and_both_sides_more_than_one() -> None:
    """Ridge regression on the labels' indicators: a trivial learner, the same for every reach."""
    reached = {}
    for name, reach in {"column": (0, 0), "before": (12, 0), "both": (12, 12)}.items():
        x, y = _columns("train", reach)
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        gram = x.T @ x + 10 * torch.eye(x.shape[1])
        weights = torch.linalg.solve(gram, x.T @ torch.nn.functional.one_hot(y, 10).float())
        test, asked = _columns("test", reach)
        guessed = (torch.cat([test, torch.ones(len(test), 1)], dim=1) @ weights).argmax(1)
        reached[name] = float((guessed == asked).float().mean())
    # .24, .43 and .62 were seen; ten classes, so .10 says nothing
    assert reached["column"] < 0.35
    assert reached["column"] + 0.05 < reached["before"] and reached["before"] + 0.05 < reached["both"]
