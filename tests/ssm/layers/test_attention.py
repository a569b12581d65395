"""Attention: against the formula, padded, in chunks and step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from salience.ssm.layers.attention import Attention, angles, turn

NEAR: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}  # float64 sums in another order


def layer(*, causal: bool = True) -> Attention:
    torch.manual_seed(0)
    return Attention(8, n_heads=2, causal=causal).double()


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False])
def test_the_formula(causal: bool) -> None:
    own, x = layer(causal=causal), inputs(1, 6)
    q, k, v = (own.in_proj(x)[0].view(6, 3, 2, 4)[:, part].transpose(0, 1) for part in range(3))  # (H, L, K)
    turned = [
        torch.polar(
            torch.ones(6, 2).double(), torch.arange(6)[:, None] * torch.tensor([1.0, 0.01], dtype=torch.float64)
        )
        * torch.complex(each[..., :2], each[..., 2:])
        for each in (q, k)
    ]
    scores = (turned[0][:, :, None] * turned[1][:, None].conj()).real.sum(-1) / math.sqrt(4)
    if causal:
        scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
    wanted = own.out_proj((scores.softmax(-1) @ v).transpose(0, 1).flatten(1))
    torch.testing.assert_close(own(x)[0], wanted, **NEAR)


def test_only_distances_count() -> None:
    q, k = inputs(1, 1)[:, None], inputs(1, 1)[:, None] + 1

    def score(at: int, other: int) -> float:
        return float((turn(q, *turned(at)) * turn(k, *turned(other))).sum())

    def turned(position: int) -> tuple[Tensor, Tensor]:
        return angles(torch.tensor([[position]]), 8, torch.float64)

    assert score(7, 3) == pytest.approx(score(104, 100), abs=1e-10)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_absent_steps_are_absent(causal: bool, reverse: bool) -> None:
    own, x = layer(causal=causal), inputs(4, 11)
    mask = torch.ones(4, 11, dtype=torch.bool)
    mask[0, :5], mask[1, 6:], mask[2, 3:9], mask[3] = False, False, False, False
    padded = x.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    y = own(padded, mask=mask, reverse=reverse)
    for row in range(3):
        alone = own(x[row : row + 1, mask[row]], reverse=reverse)[0]
        torch.testing.assert_close(y[row, mask[row]], alone, **NEAR)
    assert (y[~mask] == 0).all()
    y.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in own.parameters())


def test_reverse_is_the_flipped_sequence() -> None:
    own, x = layer(), inputs(2, 9)
    torch.testing.assert_close(own(x, reverse=True), own(x.flip(1)).flip(1), **NEAR)


def test_chunks_and_steps_are_the_whole() -> None:
    own, x = layer(), inputs(2, 25)
    whole = own(x)
    state, parts, at = own.init_state(2), [], 0
    for size in (1, 4, 2):
        before = state.counts.clone()
        y, after = own(x[:, at : at + size], state=state, return_state=True)
        assert torch.equal(state.counts, before)
        parts.append(y)
        at, state = at + size, after
    kept = state.clone()
    for t in range(at, 25):  # past the room of 16
        parts.append(own.step(x[:, t], state)[:, None])
    torch.testing.assert_close(torch.cat(parts, 1), whole, **NEAR)
    torch.testing.assert_close(own.step(x[1:, at], kept.take(torch.tensor([1]))), whole[1:, at], **NEAR)


def test_rows_of_different_lengths_go_on_each_by_itself() -> None:
    own, x = layer(), inputs(3, 12)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 1:], mask[1, :3] = False, False
    _, state = own(x[:, :7], mask=mask, return_state=True)
    y, state = own(x[:, 7:10], state=state, return_state=True)
    last = [own.step(x[:, t], state) for t in (10, 11)]
    for row in range(3):
        alone = own(torch.cat([x[row, :7][mask[row]], x[row, 7:]])[None])[0]
        torch.testing.assert_close(torch.stack([*y[row], *(each[row] for each in last)]), alone[-5:], **NEAR)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: Attention(8, n_heads=3), "d_model must be a multiple of 6 for 3 heads, not 8"),
        (lambda: Attention(8, n_heads=0), "n_heads must be a whole number of at least 1, not 0"),
        (lambda: layer()(inputs(2, 3)[..., :4]), r"x must be \(B, L, 8\)"),
        (lambda: layer()(inputs(2, 3), mask=torch.ones(2, 4).bool()), r"mask must be bool \(2, 3\)"),
        (lambda: layer(causal=False)(inputs(2, 3), return_state=True), "state must be left out"),
        (lambda: layer(causal=False).init_state(1), "state must be left out"),
    ],
)
def test_bad_input_is_named(ask: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ask()
