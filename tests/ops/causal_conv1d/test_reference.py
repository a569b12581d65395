"""The reference against the definition, step after step."""

from __future__ import annotations

import itertools

import pytest
import torch

from .cases import by_definition, poisoned, random_call


@pytest.mark.parametrize("width", [2, 3, 4, 8])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_it_is_the_definition(length: int, width: int) -> None:
    for i, (initial, mask, seq_idx, reverse) in enumerate(itertools.product([False, True], repeat=4)):
        call = random_call(
            length=length, width=width, initial=initial, mask=mask, seq_idx=seq_idx, reverse=reverse, bias=i % 3 > 0,
            activation=None if i % 2 else "silu", seed=i, dtype=torch.float64,
        )  # fmt: skip
        y, state = poisoned(call).run("reference")
        want_y, want_state = by_definition(call)
        torch.testing.assert_close(y, want_y, rtol=1e-12, atol=1e-12)  # float64 sums of at most nine terms
        assert torch.equal(state, want_state)  # moved, not computed


def test_a_row_without_a_valid_step_keeps_its_state() -> None:
    call = random_call(initial=True, mask=True, seq_idx=True)
    assert call.mask is not None and call.initial_state is not None
    call.mask[1] = False
    y, state = poisoned(call).run("reference")
    assert torch.equal(state[1], call.initial_state[1])
    assert not y[1].any()


def test_torch_has_the_same() -> None:
    call = random_call(length=50, channels=16, activation="silu")
    x = call.x.transpose(1, 2)
    want = torch.nn.functional.conv1d(x, call.weight[:, None], call.bias, padding=3, groups=16)[..., :50]
    # float32 sums of five terms in another order
    torch.testing.assert_close(call.run("reference")[0], torch.nn.functional.silu(want).transpose(1, 2))
