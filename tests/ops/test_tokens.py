"""Dropping columns of a padded batch."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from salience.ops.tokens import Columns, padding_side, remaining_columns


@st.composite
def batches(draw: Any) -> tuple[Tensor, Tensor, str]:
    """A padded mask (B, T), the columns to drop, and the side of the padding."""
    side = draw(st.sampled_from(["left", "right"]))
    width = draw(st.integers(1, 12))
    rows = draw(st.integers(1, 4))
    mask, drop = torch.zeros(rows, width, dtype=torch.long), torch.zeros(rows, width, dtype=torch.bool)
    for row in range(rows):
        length = draw(st.integers(1, width))
        place = slice(width - length, width) if side == "left" else slice(0, length)
        mask[row, place] = 1
        gone = draw(st.lists(st.booleans(), min_size=length, max_size=length))
        if all(gone):
            gone[0] = False
        drop[row, place] = torch.tensor(gone)
    return mask, drop, side


@given(batches())
def test_the_texts_stay_in_order_and_the_padding_outside(batch: tuple[Tensor, Tensor, str]) -> None:
    mask, drop, side = batch
    columns = remaining_columns(mask, drop, side=side)
    new = columns.take(mask, 0)
    assert new.shape[1] == int((mask.bool() & ~drop).sum(1).max()) + int((mask == 0).sum(1).min())
    for row in range(len(mask)):
        wanted = [i for i in range(mask.shape[1]) if mask[row, i] and not drop[row, i]]
        alive = new[row].bool()
        assert columns.index[row, alive].tolist() == wanted
        edge = alive if side == "left" else alive.flip(0)
        assert edge.tolist() == sorted(edge.tolist())  # all padding on its side
        padding = [i for i in columns.index[row, ~alive].tolist() if i >= 0]
        assert all(mask[row, i] == 0 for i in padding)
        assert padding == sorted(padding)


@given(batches())
def test_dropping_nothing_changes_nothing(batch: tuple[Tensor, Tensor, str]) -> None:
    mask, drop, side = batch
    columns = remaining_columns(mask, torch.zeros_like(drop), side=side)
    assert torch.equal(columns.index, torch.arange(mask.shape[1]).expand_as(mask))
    assert columns.dropped.tolist() == [0] * len(mask)


@given(batches())
def test_positions(batch: tuple[Tensor, Tensor, str]) -> None:
    mask, drop, side = batch
    columns = remaining_columns(mask, drop, side=side)
    original = torch.arange(mask.shape[1])[None]
    stays, alive = columns.positions(original, compact=False), columns.take(mask, 0).bool()
    closed = columns.positions(original, compact=True)
    for row in range(len(mask)):
        assert stays[row, alive[row]].tolist() == columns.index[row, alive[row]].tolist()
        steps = closed[row, alive[row]].diff()
        assert bool((steps == 1).all())
        assert closed[row, alive[row]][0] == int(mask[row].argmax())  # the first text column, whatever went after it


@given(batches(), st.integers(0, 3), st.integers(1, 3))
def test_extend_and_repeat(batch: tuple[Tensor, Tensor, str], more: int, times: int) -> None:
    mask, drop, side = batch
    columns = remaining_columns(mask, drop, side=side)
    wide = columns.extend(mask.shape[1] + more).repeat(times)
    values = torch.arange(mask.shape[1] + more).expand(len(mask) * times, -1)
    got = wide.take(values, -1)
    assert got.shape == (len(mask) * times, columns.index.shape[1] + more)
    assert torch.equal(got[:, : columns.index.shape[1]], columns.index.repeat_interleave(times, 0))
    assert torch.equal(got[:, columns.index.shape[1] :], values[:, mask.shape[1] :])
    last = wide.positions(values, compact=True)[:, -1:]
    if more:
        assert torch.equal(last[:, 0], values[:, -1] - drop.sum(1).repeat_interleave(times))


def test_an_example() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    drop = torch.tensor([[0, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 0]]).bool()
    columns = remaining_columns(mask, drop, side="left")
    assert columns.index.tolist() == [[2, 4, 5], [-1, 0, 5]]
    assert columns.take(mask, 0).tolist() == [[1, 1, 1], [0, 1, 1]]
    assert columns.positions(torch.arange(6)[None], compact=True).tolist() == [[2, 3, 4], [0, 0, 1]]
    assert isinstance(columns, Columns)


def test_side() -> None:
    assert padding_side(torch.tensor([[1, 1], [1, 1]])) == "left"
    assert padding_side(torch.tensor([[1, 1], [0, 1]])) == "left"
    assert padding_side(torch.tensor([[1, 1], [1, 0]])) == "right"
