"""The reference against the definition: one loop for each row, channel and step, in Python's own numbers."""

from __future__ import annotations

import cmath
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from salience.ops.selective_scan import selective_scan, selective_scan_step

from .cpu_cases import Call, random_call


def by_definition(call: Call) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the state (B, D, N), a number at a time."""
    batch, length, width = call.u.shape
    states, group = call.A.shape[1], width // call.B.shape[2]
    y, last = torch.zeros(batch, length, width, dtype=torch.float64), torch.zeros(batch, width, states).to(call.A.dtype)
    for b, d in itertools.product(range(batch), range(width)):
        h = [0.0] * states if call.initial_state is None else call.initial_state[b, d].tolist()
        latest = None
        for t in reversed(range(length)) if call.reverse else range(length):
            if call.mask is not None and not call.mask[b, t]:
                continue
            if call.seq_idx is not None:
                if latest is not None and int(call.seq_idx[b, t]) != latest:
                    h = [0.0] * states
                latest = int(call.seq_idx[b, t])
            u, dt = float(call.u[b, t, d]), float(call.dt[b, t, d])
            dt += 0.0 if call.dt_bias is None else float(call.dt_bias[d])
            dt = math.log1p(math.exp(dt)) if call.dt_softplus else dt
            A, B, C = call.A[d].tolist(), call.B[b, t, d // group].tolist(), call.C[b, t, d // group].tolist()
            h = [cmath.exp(dt * A[n]) * h[n] + dt * B[n] * u for n in range(states)]
            value = sum(C[n] * h[n] for n in range(states))
            out = (2 if call.A.is_complex() else 1) * complex(value).real
            out += 0.0 if call.D is None else float(call.D[d]) * u
            if call.z is not None:
                z = float(call.z[b, t, d])
                out *= z / (1 + math.exp(-z))
            y[b, t, d] = out
        last[b, d] = torch.tensor([x if call.A.is_complex() else complex(x).real for x in h], dtype=last.dtype)
    return y, last


def assert_equal(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)  # float64 sums over a few dozen terms


@pytest.mark.parametrize("length", [1, 2, 11])
def test_it_is_the_definition(length: int) -> None:
    for i, (optional, mask, seq_idx, reverse) in enumerate(itertools.product([False, True], repeat=4)):
        call = random_call(
            length=length, channels=4, states=3, groups=1 + i % 2, optional=optional, softplus=i % 3 > 0, mask=mask,
            seq_idx=seq_idx, reverse=reverse, seed=i, dtype=torch.float64,
        )  # fmt: skip
        call = call.double()
        assert_equal(call.run("reference"), by_definition(call))


def test_a_complex_system_stands_for_its_conjugate_too() -> None:
    call = random_call(length=9, channels=4, states=3, dtype=torch.float64, optional=False)
    g = torch.Generator().manual_seed(5)
    A = torch.complex(call.A, torch.randn(call.A.shape, generator=g).double())
    B, C = (torch.complex(x, torch.randn(x.shape, generator=g).double()) for x in (call.B, call.C))
    call = replace(call, A=A, B=B, C=C)
    assert_equal(call.run("reference"), by_definition(call))


def test_a_row_without_a_valid_step_keeps_its_state() -> None:
    call = random_call(length=7, mask=True, seq_idx=True)
    assert call.mask is not None and call.initial_state is not None
    call.mask[1] = False
    y, state = call.run("reference")
    assert torch.equal(state[1], call.initial_state[1])
    assert not y[1].any()


def test_steps_are_the_definition() -> None:
    call = random_call(length=5, channels=4, states=3, groups=2, dtype=torch.float64).double()
    y, last = by_definition(call)
    assert call.initial_state is not None and call.z is not None
    state = call.initial_state.clone()
    for t in range(5):
        got = selective_scan_step(
            state, call.u[:, t], call.dt[:, t], call.A, call.B[:, t], call.C[:, t], call.D, z=call.z[:, t],
            dt_bias=call.dt_bias, dt_softplus=True, backend="reference",
        )  # fmt: skip
        torch.testing.assert_close(got, y[:, t], rtol=1e-11, atol=1e-11)  # as above
    torch.testing.assert_close(state, last, rtol=1e-11, atol=1e-11)


def test_one_group_may_be_left_out() -> None:
    call = random_call(length=6, optional=False)
    B, C = call.B[:, :, 0], call.C[:, :, 0]
    short = selective_scan(call.u, call.dt, call.A, B, C, dt_softplus=True, backend="reference")
    assert torch.equal(short, call.run("reference")[0])


def test_sixteen_bits_are_rounded_once() -> None:
    call = random_call(length=20, dtype=torch.bfloat16, optional=False)
    y, state = call.run("reference")
    wide, wide_state = replace(call, **{n: getattr(call, n).float() for n in ("u", "dt", "B", "C")}).run("reference")
    assert y.dtype == torch.bfloat16 and torch.equal(y, wide.bfloat16())
    assert state.dtype == torch.float32 and torch.equal(state, wide_state)
