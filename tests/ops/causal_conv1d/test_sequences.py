"""What packing, chunks, padding and direction must not change; on every backend that runs here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from .cases import poisoned, random_call
from .tolerances import assert_close

BACKENDS = ["reference", "cpu"]


def assert_same(got: Tensor, want: Tensor, backend: str) -> None:
    """To the bit; torch's own silu rounds differently at the end of a tensor than inside it."""
    if backend == "cpu":
        assert torch.equal(got, want)
    assert_close(got, want)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_equals_separate(backend: str, reverse: bool) -> None:
    lengths = [1, 40, 2, 7, 33]
    call = random_call(batch=1, length=sum(lengths), channels=20, reverse=reverse)
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None] % 3
    y, state = replace(call, seq_idx=ids).run(backend)
    parts = [replace(call, x=x).run(backend) for x in call.x.split(lengths, dim=1)]
    assert_same(y, torch.cat([part[0] for part in parts], dim=1), backend)
    assert torch.equal(state, parts[0 if reverse else -1][1])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_chunks_equal_the_whole(backend: str, reverse: bool) -> None:
    call = random_call(length=83, channels=20, initial=True, mask=True, reverse=reverse)
    assert call.mask is not None
    whole, last = call.run(backend)
    state, parts = call.initial_state, []
    pieces = list(zip(call.x.split([1, 2, 50, 30], 1), call.mask.split([1, 2, 50, 30], 1), strict=True))
    for x, mask in reversed(pieces) if reverse else pieces:
        y, state = replace(call, x=x, mask=mask, initial_state=state).run(backend)
        parts.append(y)
    assert_same(torch.cat(parts[::-1] if reverse else parts, dim=1), whole, backend)
    assert torch.equal(state, last)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_flip_convolve_flip(backend: str) -> None:
    call = random_call(length=45, channels=20, initial=True, mask=True, seq_idx=True, reverse=True)
    assert call.mask is not None and call.seq_idx is not None
    y, state = call.run(backend)
    turned = replace(call, x=call.x.flip(1), mask=call.mask.flip(1), seq_idx=call.seq_idx.flip(1), reverse=False)
    want, last = turned.run(backend)
    assert_same(y, want.flip(1), backend)
    assert torch.equal(state, last)


@pytest.mark.parametrize("where", ["left", "right", "inside"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_padded_batch_equals_its_rows_alone(backend: str, where: str) -> None:
    call = random_call(batch=3, length=30, channels=20, initial=True)
    count = torch.tensor([30, 1, 17])
    place = torch.arange(30).expand(3, 30)
    inside = torch.rand(3, 30, generator=torch.Generator().manual_seed(0)) > 0.4
    mask = {"left": place >= 30 - count[:, None], "right": place < count[:, None], "inside": inside}[where]
    y, state = poisoned(replace(call, mask=mask)).run(backend)
    assert call.initial_state is not None
    for b in range(3):
        alone = replace(call, x=call.x[b : b + 1, mask[b]], initial_state=call.initial_state[b : b + 1])
        want, last = alone.run(backend)
        assert_same(y[b, mask[b]], want[0], backend)
        assert torch.equal(state[b], last[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_equal_the_whole(dtype: torch.dtype) -> None:
    from salience.ops.causal_conv1d import causal_conv1d_step

    for width in range(2, 9):
        for backend in BACKENDS:
            call = random_call(length=9, channels=37, width=width, initial=True, dtype=dtype, bias=width > 3)
            assert call.initial_state is not None
            state, (whole, last) = call.initial_state.clone(), call.run("reference")
            for t in range(9):
                y = causal_conv1d_step(
                    state, call.x[:, t], call.weight, call.bias, activation=call.activation, backend=backend
                )
                assert_close(y, whole[:, t])
            assert torch.equal(state, last)


@pytest.mark.parametrize("strided", ["state", "x", "both"])
def test_a_step_on_strided_tensors(strided: str) -> None:
    from salience.ops.causal_conv1d import causal_conv1d_step

    call = random_call(batch=3, length=2, channels=37, initial=True)
    assert call.initial_state is not None
    x, state = call.x[:, 0], call.initial_state
    if strided != "x":  # as the cache of other libraries lies: (B, D, W - 1)
        state = state.transpose(1, 2).contiguous().transpose(1, 2)
    if strided != "state":
        x = torch.stack([x, x], dim=-1)[..., 1]
    other = state.clone()
    y = causal_conv1d_step(state, x, call.weight, call.bias, activation="silu", backend="cpu")
    assert_close(y, causal_conv1d_step(other, x, call.weight, call.bias, activation="silu", backend="reference"))
    assert torch.equal(state, other)


def test_a_step_with_a_state_of_another_dtype() -> None:
    from salience.ops.causal_conv1d import causal_conv1d_step

    for kinds in [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16)]:
        call = random_call(length=1, channels=20, initial=True)
        assert call.initial_state is not None
        states = [call.initial_state.to(kinds[0], copy=True) for _ in BACKENDS]
        ys = [
            causal_conv1d_step(state, call.x[:, 0].to(kinds[1]), call.weight, call.bias, backend=backend)
            for state, backend in zip(states, BACKENDS, strict=True)
        ]
        assert_close(*ys)
        assert torch.equal(*states)


def test_a_large_step_is_split() -> None:
    from salience.ops.causal_conv1d import causal_conv1d_step

    call = random_call(batch=150, length=1, channels=1000, initial=True)
    assert call.initial_state is not None
    whole, last = call.run("reference")
    state = call.initial_state.clone()
    assert_close(causal_conv1d_step(state, call.x[:, 0], call.weight, call.bias, activation="silu"), whole[:, 0])
    assert torch.equal(state, last)
