"""S4: Cauchy kernel, dense matrices and recurrence agree, in chunks, padded, backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience.ssm.layers import dplr, s4
from salience.ssm.layers.hippo import legs, normal_part
from salience.ssm.layers.s4 import S4

from . import linear_layers as check


@pytest.fixture
def layer() -> Any:
    torch.manual_seed(0)
    return check.moved(S4(check.WIDTH, d_state=8))


def test_the_convolution_is_the_recurrence(layer: S4) -> None:
    check.whole_is_the_recurrence(layer)


@pytest.mark.parametrize("length", [1, 2, 33, 64])  # the generating function at z = -1 too, and not
def test_the_kernel_is_that_of_the_dense_system(layer: S4, length: int) -> None:
    n, eye = layer.n, torch.eye(2 * layer.n).to(torch.complex128)
    planes = {name: torch.complex(*getattr(layer, name)) for name in ("P", "B", "C")}
    poles = torch.complex(-layer.A_re_log.exp(), layer.A_im)
    got = layer.kernel(length, torch.float64)
    for d in range(check.WIDTH):
        P, B, C, half = (torch.cat([x[d], x[d].conj()]) for x in (*planes.values(), poles))
        A = torch.diag(half) - torch.outer(P, P.conj())
        back = eye - A * layer.log_dt[d].exp() / 2
        step, x = torch.linalg.solve(back, 2 * eye - back), torch.linalg.solve(back, B * layer.log_dt[d].exp())
        for t in range(length):
            wanted = (C @ x).real
            torch.testing.assert_close(got[d, t], wanted, **check.NEAR)
            x = step @ x
    assert n == 4


def test_the_kernel_in_parts(layer: S4, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for table in (dplr.TABLE, 10 * check.WIDTH * layer.n):
        monkeypatch.setattr(dplr, "TABLE", table)
        kernel = layer.kernel(64, torch.float64)
        found.append([kernel.detach(), *torch.autograd.grad(kernel.square().sum(), [layer.P, layer.log_dt])])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, **check.NEAR)


def test_it_starts_as_hippo_by_the_bilinear_rule() -> None:
    """What the state holds, turned back into real coordinates, is what HiPPO-LegS itself would."""
    layer = S4(1, d_state=16).double()
    A, B = legs(16)
    dt, eye = float(layer.log_dt.detach().exp()), torch.eye(16, dtype=torch.float64)
    V, state, x = normal_part(16)[1], layer.init_state(1), torch.zeros(16, dtype=torch.float64)
    for u in torch.randn(20, generator=torch.Generator().manual_seed(0)).double():
        layer.step(u.reshape(1, 1), state)
        x = torch.linalg.solve(eye - A * dt / 2, (eye + A * dt / 2) @ x + dt * B * u)
        z = torch.complex(state.planes[0, 0, 0], state.planes[0, 1, 0])
        # the parameters were rounded to float32
        torch.testing.assert_close(2 * (V @ z).real, x, rtol=0, atol=1e-5 * float(x.abs().max()))


def test_chunks_are_the_whole(layer: S4) -> None:
    check.chunks_are_the_whole(layer)
    check.gradients_flow_through_the_state(layer)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", check.MASKS)
def test_padded_rows_are_the_rows_alone(layer: S4, kind: str, reverse: bool) -> None:
    check.padded_rows_are_the_rows_alone(layer, kind, reverse)


def test_reverse(layer: S4) -> None:
    check.reverse_is_flip_run_flip(layer)


def test_spans_join(layer: S4, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s4, "SPAN_BIT", 2)
    monkeypatch.setattr(s4, "SPAN", 4)
    check.whole_is_the_recurrence(layer)
    check.chunks_are_the_whole(layer)
    check.padded_rows_are_the_rows_alone(layer, "inner", True)


def test_gradients(layer: S4) -> None:
    check.gradients_are_those_of_the_recurrence(layer)


def test_float32() -> None:
    torch.manual_seed(0)
    check.float32_keeps_to_the_recurrence(S4(check.WIDTH))


@pytest.mark.slow
def test_it_compiles_as_one_graph() -> None:
    torch.manual_seed(0)
    check.compiles_as_one_graph(check.moved(S4(check.WIDTH, d_state=4)))


def test_copies_and_groups(layer: S4) -> None:
    check.copies_pickles_and_casts(layer)
    check.takes_and_clones(layer)
    check.ssm_parameters_have_their_group(layer, {"log_dt", "A_re_log", "A_im", "P", "B"})


def test_what_makes_no_sense_is_told() -> None:
    with pytest.raises(ValueError, match="d_state must be an even number"):
        S4(4, d_state=5)
    with pytest.raises(ValueError, match="seq_idx must be None: S4 is a convolution"):
        S4(4, d_state=4)(torch.zeros(1, 3, 4), seq_idx=torch.zeros(1, 3))
