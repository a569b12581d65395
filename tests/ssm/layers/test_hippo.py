"""HiPPO-LegS and the starts of S4D against what can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from salience.ssm.layers.hippo import legs, low_rank, normal_part, s4d_poles

# float64 eigenvectors of matrices with entries up to 2N: a few hundred units in the last place
NEAR = {"rtol": 1e-11, "atol": 1e-11}


def test_three_states_written_out() -> None:
    r3, r5, r15 = math.sqrt(3), math.sqrt(5), math.sqrt(15)
    A, B = legs(3)
    want = torch.tensor([[-1, 0, 0], [-r3, -2, 0], [-r5, -r15, -3]], dtype=torch.float64)
    torch.testing.assert_close(A, want)
    torch.testing.assert_close(B, torch.tensor([1, r3, r5], dtype=torch.float64))


def test_legs_remembers_legendre_coefficients() -> None:
    # of a constant input 1 the fixed point A c + B = 0 is the first Legendre polynomial alone: c = (1, 0, 0, ...)
    A, B = legs(16)
    c = torch.linalg.solve(A, -B)
    torch.testing.assert_close(c, torch.eye(16, dtype=torch.float64)[0], rtol=0, atol=1e-12)  # triangular solve


@pytest.mark.parametrize("n", [2, 16, 64])
def test_the_normal_part(n: int) -> None:
    A, P = legs(n)[0], low_rank(n)
    normal = A + torch.outer(P, P)
    torch.testing.assert_close(normal @ normal.T, normal.T @ normal, rtol=1e-11, atol=1e-9)  # entries up to N^3
    poles, V = normal_part(n)
    assert bool((poles.real == -0.5).all()) and bool((poles.imag > 0).all())
    torch.testing.assert_close(normal.to(V.dtype) @ V, V * poles, **NEAR)
    full = torch.cat([V, V.conj()], dim=1)
    torch.testing.assert_close(full.conj().T @ full, torch.eye(n).to(full.dtype), **NEAR)


def test_two_states_of_the_normal_part() -> None:
    # A + P P^T = [[-1/2, r3/2], [-r3/2, -1/2]] with r3 = sqrt(3): eigenvalues -1/2 +- i r3/2
    assert abs(complex(normal_part(2)[0][0]) - complex(-0.5, math.sqrt(3) / 2)) < 1e-15  # a unit in the last place


def test_closed_forms_of_s4d() -> None:
    lin, inv = s4d_poles("lin", 8), s4d_poles("inv", 8)
    torch.testing.assert_close(lin.imag, torch.tensor([0, 1, 2, 3], dtype=torch.float64) * math.pi)
    wanted = [8 / math.pi * (8 / (2 * n + 1) - 1) for n in range(4)]
    torch.testing.assert_close(inv.imag, torch.tensor(wanted, dtype=torch.float64))
    assert bool((lin.real == -0.5).all()) and bool((inv.real == -0.5).all())
    torch.testing.assert_close(s4d_poles("real", 5), torch.tensor([-1, -2, -3, -4, -5]).to(torch.complex128))
    assert torch.equal(s4d_poles("legs", 8), normal_part(8)[0])


def test_s4d_inv_is_near_legs() -> None:
    # conjecture 5 of the S4D paper: the largest frequency of LegS is about N^2 / pi
    top = float(normal_part(128)[0].imag.max())
    assert abs(top / float(s4d_poles("inv", 128).imag.max()) - 1) < 0.02  # asymptotic in N


def test_what_makes_no_sense_is_told() -> None:
    with pytest.raises(ValueError, match="init must be one of 'lin', 'inv', 'legs', 'real', not 'log'"):
        s4d_poles("log", 8)
    for odd in (lambda: s4d_poles("lin", 7), lambda: s4d_poles("legs", 0)):
        with pytest.raises(ValueError, match="d_state must be an even number of at least 2"):
            odd()
    with pytest.raises(ValueError, match="n must be an even number"):
        normal_part(3)
