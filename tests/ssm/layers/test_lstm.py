"""LSTM: padded, in chunks, step by step and backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from salience.ssm.layers.lstm import LSTM

NEAR: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}  # float64 sums in another order


def layer(*, causal: bool = True) -> LSTM:
    torch.manual_seed(0)
    return LSTM(6, d_hidden=5, causal=causal).double()


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 6, generator=torch.Generator().manual_seed(length), dtype=torch.float64)


def holes() -> Tensor:
    mask = torch.ones(4, 11, dtype=torch.bool)
    mask[0, :5], mask[1, 6:], mask[2, 3:9], mask[3] = False, False, False, False
    return mask


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_absent_steps_are_absent(causal: bool, reverse: bool) -> None:
    own, x, mask = layer(causal=causal), inputs(4, 11), holes()
    y = own(x.masked_fill(~mask[..., None], float("nan")), mask=mask, reverse=reverse)
    for row in range(3):
        alone = own(x[row : row + 1, mask[row]], reverse=reverse)[0]
        torch.testing.assert_close(y[row, mask[row]], alone, **NEAR)
    assert (y[~mask] == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_state_is_that_after_the_last_valid_step(reverse: bool) -> None:
    own, x, mask = layer(), inputs(4, 11), holes()
    _, begun = own(inputs(4, 3), return_state=True)
    y, state = own(x, mask=mask, state=begun, return_state=True, reverse=reverse)
    torch.testing.assert_close(own(x, mask=mask, state=begun, reverse=reverse), y, **NEAR)  # packed and not
    for row in range(3):
        own_state = begun.take(torch.tensor([row]))
        _, alone = own(x[row : row + 1, mask[row]], state=own_state, return_state=True, reverse=reverse)
        torch.testing.assert_close(state.h[row], alone.h[0], **NEAR)
        torch.testing.assert_close(state.c[row], alone.c[0], **NEAR)
    assert torch.equal(state.h[3], begun.h[3]) and torch.equal(state.c[3], begun.c[3])


def test_chunks_and_steps_are_the_whole() -> None:
    own, x = layer(), inputs(2, 9)
    whole = own(x)
    y, state = own(x[:, :4], state=own.init_state(2), return_state=True)
    parts = [y, *(own.step(x[:, t], state)[:, None] for t in range(4, 9))]
    torch.testing.assert_close(torch.cat(parts, 1), whole, **NEAR)


def test_one_way_and_both() -> None:
    x = inputs(1, 9)
    later = x.clone()
    later[:, 6:] += 1
    assert torch.equal(layer()(x)[:, :6], layer()(later)[:, :6])
    both = layer(causal=False)
    assert ((both(x) - both(later))[:, :6].abs().amax(-1) > 1e-9).all()


def test_forget_gates_start_open() -> None:
    own = layer()
    both = own.lstm.bias_ih_l0 + own.lstm.bias_hh_l0
    assert torch.equal(both[5:10], torch.ones(5).double())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="d_hidden must be a whole number of at least 1, not 0"):
        LSTM(6, d_hidden=0)
    with pytest.raises(ValueError, match=r"mask must be bool \(2, 3\)"):
        layer()(inputs(2, 3), mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match="state must be left out"):
        layer(causal=False)(inputs(2, 3), return_state=True)
