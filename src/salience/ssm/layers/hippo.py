"""HiPPO-LegS and where the poles of S4's descendants start.

Letters: N states. A real system of N states with complex poles is kept as N/2 of them, the other half being conjugate.
Everything is float64 or complex128: layers round what they keep.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

INITS = ("lin", "inv", "legs", "real")


def legs(n: int) -> tuple[Tensor, Tensor]:
    """A (N, N) and B (N,) of HiPPO-LegS, the memory of the whole past in Legendre polynomials.

    A_nk = -sqrt(2n+1) sqrt(2k+1) for n > k, -(n+1) for n = k, 0 above the diagonal; B_n = sqrt(2n+1).

    Source: Gu et al., HiPPO (arXiv 2008.07669), theorem 2, with the sign of S4 (arXiv 2111.00396), equation 2
    """
    root = torch.sqrt(2 * torch.arange(n, dtype=torch.float64) + 1)
    diagonal = torch.arange(1, n + 1, dtype=torch.float64)
    return -(torch.tril(torch.outer(root, root), -1) + torch.diag(diagonal)), root


def low_rank(n: int) -> Tensor:
    """P (N,): A + P P^T is normal, P_n = sqrt(n + 1/2) (arXiv 2111.00396, appendix C.1)."""
    return torch.sqrt(torch.arange(n, dtype=torch.float64) + 0.5)


def normal_part(n: int) -> tuple[Tensor, Tensor]:
    """The eigenvalues (N/2,) of A + P P^T with positive imaginary part, ascending, and their eigenvectors (N, N/2).

    A + P P^T + I/2 is skew-symmetric: every real part is exactly -1/2, and a Hermitian solver finds the rest.
    A real vector x has the coordinates V* x, and their conjugates for the other half.

    Raises:  ValueError when n is odd
    """
    if n < 2 or n % 2:
        raise ValueError(f"n must be an even number of at least 2, not {n!r}.")
    A, P = legs(n)[0], low_rank(n)
    skew = A + torch.outer(P, P) + torch.eye(n, dtype=torch.float64) / 2
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    half = frequencies[n // 2 :]
    return torch.complex(torch.full_like(half, -0.5), half), vectors[:, n // 2 :]


def s4d_poles(init: str, d_state: int) -> Tensor:
    """Where S4D's A starts: (N/2,) complex128, one of each conjugate pair; for "real" all N of them.

    lin: -1/2 + i pi n   inv: -1/2 + i (N/pi) (N/(2n+1) - 1)   legs: `normal_part`   real: -(n+1)

    Source:  Gu, Gupta, Goel and Ré, S4D (arXiv 2206.11893), section 4
    Raises:  ValueError for an unknown init or, but for "real", an odd d_state
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, not {init!r}.")
    if init == "real":
        return torch.complex(-torch.arange(1.0, d_state + 1, dtype=torch.float64), torch.zeros(d_state).double())
    if d_state < 2 or d_state % 2:
        raise ValueError(f"d_state must be an even number of at least 2, not {d_state!r}.")
    if init == "legs":
        return normal_part(d_state)[0]
    n = torch.arange(d_state // 2, dtype=torch.float64)
    frequencies = math.pi * n if init == "lin" else d_state / math.pi * (d_state / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), frequencies)
