"""The fused CPU path against the reference: outputs, states and every gradient."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salience.ops.causal_conv1d import causal_conv1d

from .cases import Call, poisoned, random_call
from .tolerances import DTYPES, assert_close

LENGTHS = [1, 2, 31, 32, 33, 63, 64, 65, 100, 1000]


def agree(call: Call, *, seed: int = 0, with_state: bool = True) -> None:
    """Forward and backward equal the reference's; NaN where steps are masked, in x and in the gradient of y."""
    call = poisoned(call)
    g = torch.Generator().manual_seed(seed)
    y, state = call.run("cpu")
    want_y, want_state = call.run("reference")
    assert y.is_contiguous()
    assert_close(y, want_y)
    assert torch.equal(state, want_state)  # moved, not computed
    dy = torch.randn(y.shape, generator=g).to(y.dtype)
    if call.mask is not None:
        assert not y[~call.mask].any()
        dy[~call.mask] = torch.nan
    dstate = torch.randn(state.shape, generator=g).to(y.dtype) if with_state else None
    got = call.gradients("cpu", dy, dstate)
    want = call.gradients("reference", dy.nan_to_num() if call.mask is not None else dy, dstate)
    for name, value in want.items():
        summed = name in ("weight", "bias")
        # autograd rounds each part of a gradient in half precision; the kernel rounds the sum once
        assert_close(got[name], value, terms=dy.shape[0] * dy.shape[1] if summed else call.weight.shape[1] + 1)
    if call.mask is not None:
        assert not got["x"][~call.mask].any()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths(dtype: torch.dtype, length: int) -> None:
    agree(random_call(length=length, channels=37, dtype=dtype, initial=True))


@pytest.mark.parametrize("width", range(2, 9))
@pytest.mark.parametrize("channels", [1, 8, 16, 17, 64, 65, 130])
def test_widths_and_channels(channels: int, width: int) -> None:
    agree(random_call(length=40, channels=channels, width=width, initial=channels % 2 == 0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["plain", "half", "turned", "spread", "expanded"])
def test_any_strides(layout: str, dtype: torch.dtype) -> None:
    agree(random_call(length=50, channels=70, layout=layout, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_options(dtype: torch.dtype) -> None:
    for i, (initial, mask, seq_idx, reverse) in enumerate(itertools.product([False, True], repeat=4)):
        agree(
            random_call(
                length=70, channels=20, width=2 + i % 7, dtype=dtype, initial=initial, mask=mask, seq_idx=seq_idx,
                reverse=reverse, bias=i % 3 > 0, activation=None if i % 2 else "silu", seed=i,
            ), with_state=i % 4 > 0,
        )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3), st.integers(1, 80), st.integers(1, 80), st.integers(2, 8), st.sampled_from(DTYPES),
    st.sampled_from(["plain", "half", "turned", "spread"]), st.tuples(*[st.booleans()] * 7), st.integers(0, 2**31),
)  # fmt: skip
def test_anything(
    batch: int, length: int, channels: int, width: int, dtype: torch.dtype, layout: str, flags: tuple[bool, ...],
    seed: int,
) -> None:  # fmt: skip
    bias, silu, initial, mask, seq_idx, reverse, with_state = flags
    agree(
        random_call(
            batch=batch, length=length, channels=channels, width=width, dtype=dtype, bias=bias, layout=layout,
            activation="silu" if silu else None, initial=initial, mask=mask, seq_idx=seq_idx, reverse=reverse,
            seed=seed,
        ), seed=seed, with_state=with_state,
    )  # fmt: skip


def test_no_valid_step_in_a_row() -> None:
    call = random_call(initial=True, mask=True, seq_idx=True, length=40)
    assert call.mask is not None
    call.mask[0] = False
    agree(call)


def test_an_empty_batch() -> None:
    call = random_call(batch=0, initial=True)
    y, state = call.run("cpu")
    assert y.shape == (0, 13, 5)
    assert state.shape == (0, 3, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_in_float32_beside_half_inputs(dtype: torch.dtype) -> None:
    call = random_call(length=50, channels=24, dtype=dtype)
    assert call.bias is not None
    agree(replace(call, weight=call.weight.float(), bias=call.bias.float()))


def test_gradcheck() -> None:
    for i, (mask, seq_idx, reverse) in enumerate(itertools.product([False, True], repeat=3)):
        call = random_call(
            length=7, channels=3, width=3 + i % 2, dtype=torch.float64, initial=True, mask=mask, seq_idx=seq_idx,
            reverse=reverse, activation=None if i == 5 else "silu", seed=i,
        ).leaves()  # fmt: skip

        def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, initial: torch.Tensor, call: Call = call):  # type: ignore[no-untyped-def]
            return replace(call, x=x, weight=weight, bias=bias, initial_state=initial).run("cpu")

        torch.autograd.gradcheck(run, (call.x, call.weight, call.bias, call.initial_state))


def test_gradients_are_deterministic() -> None:
    call = random_call(batch=3, length=200, channels=200)
    dy, before = torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(1)), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 7, 7):
            torch.set_num_threads(threads)
            found.append(call.gradients("cpu", dy, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in found[0])


def test_only_some_gradients() -> None:
    call = random_call(initial=True)
    call.weight.requires_grad_()
    y, state = call.run("cpu")
    (alone,) = torch.autograd.grad(state.sum() + y.sum(), [call.weight])
    assert_close(alone, call.gradients("cpu", torch.ones_like(y), torch.ones_like(state))["weight"])
    x = call.x.clone().requires_grad_()
    state = causal_conv1d(x, call.weight, return_state=True, backend="cpu")[1]
    (dx,) = torch.autograd.grad(state.sum(), [x])
    assert torch.equal(dx[:, -3:], torch.ones_like(dx[:, -3:]))
    assert not dx[:, :-3].any()


@pytest.mark.parametrize("value", [1e4, -1e4, 90.0, -90.0, torch.inf])
def test_large_values(value: float) -> None:
    x = torch.full((1, 3, 4), value)
    weight = torch.tensor([[0.0, 1.0]]).expand(4, 2)
    y = causal_conv1d(x[:, :1], weight, activation="silu", backend="cpu")
    # silu(-90) is -7e-38: 0 is as good
    torch.testing.assert_close(y, torch.nn.functional.silu(x[:, :1]), rtol=2e-6, atol=1e-35)
