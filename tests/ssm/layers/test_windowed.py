"""Windowed attention: equal to dense attention with the equivalent mask, padded, in chunks and step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from salience.ssm.layers.attention import Attention
from salience.ssm.layers.windowed import WindowedAttention

NEAR: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}  # float64 sums in another order


def layer(window: int, n_global: int, *, causal: bool) -> WindowedAttention:
    torch.manual_seed(0)
    return WindowedAttention(8, n_heads=2, window=window, n_global=n_global, causal=causal).double()


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def dense(own: WindowedAttention, x: Tensor) -> Tensor:
    """All keys against all queries, the mask written down as the docstring says it."""
    q, k, v = own._turned(x, None)
    i, j = torch.arange(x.shape[1])[:, None], torch.arange(x.shape[1])
    g, w = own.n_global, own.window
    near = (j <= i) & ((i - j < w) | (j < g)) if own.causal else ((i - j).abs() < w) | (j < g) | (i < g)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=near)
    found: Tensor = own.out_proj(y.transpose(1, 2).flatten(2))
    return found


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "n_global"), [(4, 0), (4, 3), (1, 0), (3, 5), (32, 2), (4, 32)])
@pytest.mark.parametrize("length", [1, 4, 17])
def test_it_is_dense_attention_with_a_mask(causal: bool, window: int, n_global: int, length: int) -> None:
    own, x = layer(window, n_global, causal=causal), inputs(2, length).requires_grad_()
    y, wanted = own(x), dense(own, x)
    torch.testing.assert_close(y, wanted, **NEAR)
    weight = torch.randn_like(y)
    for ours, theirs in zip(
        torch.autograd.grad((y * weight).sum(), [x, own.in_proj.weight]),
        torch.autograd.grad((wanted * weight).sum(), [x, own.in_proj.weight]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **NEAR)


def test_a_window_over_everything_is_attention() -> None:
    own, whole = layer(32, 0, causal=True), Attention(8, n_heads=2).double()
    whole.load_state_dict(own.state_dict())
    x = inputs(2, 17)
    torch.testing.assert_close(own(x), whole(x), **NEAR)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_absent_steps_are_absent(causal: bool, reverse: bool) -> None:
    own, x = layer(4, 2, causal=causal), inputs(4, 13)
    mask = torch.ones(4, 13, dtype=torch.bool)
    mask[0, :5], mask[1, 6:], mask[2, 3:9], mask[3] = False, False, False, False
    y = own(x.masked_fill(~mask[..., None], float("nan")), mask=mask, reverse=reverse)
    for row in range(3):
        alone = own(x[row : row + 1, mask[row]], reverse=reverse)[0]
        torch.testing.assert_close(y[row, mask[row]], alone, **NEAR)
    assert (y[~mask] == 0).all()


@pytest.mark.parametrize("n_global", [0, 2, 7])
def test_chunks_and_steps_are_the_whole(n_global: int) -> None:
    own, x = layer(4, n_global, causal=True), inputs(2, 19)
    whole = own(x)
    state, parts, at = own.init_state(2), [], 0
    for size in (1, 5, 3, 6):
        y, state = own(x[:, at : at + size], state=state, return_state=True)
        parts.append(y)
        at += size
    kept = state.clone()
    for t in range(at, 19):
        parts.append(own.step(x[:, t], state)[:, None])
    torch.testing.assert_close(torch.cat(parts, 1), whole, **NEAR)
    again = kept.take(torch.tensor([1]))
    torch.testing.assert_close(own.step(x[1:, at], again), whole[1:, at], **NEAR)


def test_rows_of_different_lengths_go_on_each_by_itself() -> None:
    own, x = layer(3, 2, causal=True), inputs(3, 12)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 1:], mask[1, :3] = False, False
    _, state = own(x[:, :7], mask=mask, return_state=True)
    y, state = own(x[:, 7:10], state=state, return_state=True)
    last = own.step(x[:, 10], state)
    for row in range(3):
        alone = own(torch.cat([x[row, :7][mask[row]], x[row, 7:11]])[None])[0]
        torch.testing.assert_close(torch.cat([y[row], last[row, None]]), alone[-4:], **NEAR)


def test_the_state_does_not_grow() -> None:
    own = layer(4, 2, causal=True)
    _, state = own(inputs(1, 40), return_state=True)
    assert state.k.shape == own.init_state(1).k.shape == (1, 2, 6, 4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 0}, "window must be a whole number of at least 1, not 0"),
        ({"n_global": -1}, "n_global must be a whole number of at least 0, not -1"),
        ({"n_heads": 3}, "d_model must be a multiple of 6 for 3 heads, not 8"),
    ],
)
def test_wrong_sizes_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        WindowedAttention(8, **options)


def test_both_ways_have_no_state() -> None:
    with pytest.raises(ValueError, match="state must be left out"):
        layer(4, 2, causal=False).init_state(1)
