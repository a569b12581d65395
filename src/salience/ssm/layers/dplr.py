"""Diagonal plus low rank: A = Lambda - P P*, discretised by the bilinear rule, as S4 needs it.

Everything is planes (2, D, n), real before imaginary: D systems, each with n of N = 2n complex states, the others being
their conjugates. P P* couples the two halves: P* x over all N is 2 Re sum conj(P) x over n.

With the bilinear rule, x' = (2/dt - A)^-1 ((2/dt + A) x + 2 B u). What has to be inverted is a diagonal plus P P*: by
the Woodbury identity a division for each state and one for each system. The real part of Lambda is negative, so A's
numerical range lies left of the imaginary axis, and no power of Abar is longer than 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from salience.ops.resolvent import resolvent
from salience.ssm.layers.powers import over, times

TABLE = 1 << 20  # entries of a table over systems, states and nodes: beyond, the nodes are taken in parts


@dataclass(frozen=True, kw_only=True, eq=False)
class DPLR:
    """poles, P, B, C: (2, D, n)   dt: (D,). y = 2 Re sum C x over n."""

    poles: Tensor
    P: Tensor
    B: Tensor
    C: Tensor
    dt: Tensor

    def advance(self, x: Tensor, u: Tensor | None) -> Tensor:
        """One step: x (2, R, D, n), u (R, D) or None for 0 -> x of the next step."""
        rate = (2 / self.dt)[:, None]
        forward = torch.stack([rate + self.poles[0], self.poles[1]])
        ahead = times(forward[:, None], x) - self.P[:, None] * self._project(self.P, x)
        if u is not None:
            ahead = ahead + 2 * self.B[:, None] * u[..., None]
        backward = torch.stack([rate - self.poles[0], -self.poles[1]])  # (2, D, n)
        ahead = over(ahead, backward[:, None])
        lent = over(self.P, backward)
        share = self._project(self.P, ahead) / (1 + self._project(self.P, lent[:, None]))
        return ahead - lent[:, None] * share

    def read(self, x: Tensor) -> Tensor:
        """y (R, D) of x (2, R, D, n)."""
        return 2 * (self.C[0] * x[0] - self.C[1] * x[1]).sum(-1)

    @staticmethod
    def _project(P: Tensor, x: Tensor) -> Tensor:
        """P* x over all N states: (R, D, 1), real."""
        return 2 * (P[0] * x[0] + P[1] * x[1]).sum(-1, keepdim=True)

    def matrix(self) -> Tensor:
        """Abar (D, 2n, 2n) on [Re x, Im x]: real and dense."""
        n = self.P.shape[2]
        unit = torch.eye(2 * n, dtype=self.P.dtype, device=self.P.device)
        basis = unit.reshape(2 * n, 2, 1, n).transpose(0, 1).expand(2, 2 * n, self.P.shape[1], n)
        return self.advance(basis, None).permute(2, 0, 3, 1).flatten(1, 2)

    def drive(self) -> Tensor:
        """Bbar (D, 2n)."""
        zero = torch.zeros_like(self.P)[:, None]
        return self.advance(zero, torch.ones_like(self.dt)[None])[:, 0].transpose(0, 1).flatten(1)

    def readout(self) -> Tensor:
        """C (D, 2n): y = readout [Re x, Im x]."""
        return 2 * torch.cat([self.C[0], -self.C[1]], dim=-1)


def squares(matrix: Tensor, length: int) -> list[Tensor]:
    """M, M^2, M^4 ..: as many as `length` has binary digits."""
    found = [matrix]
    for _ in range(length.bit_length() - 1):
        found.append(found[-1] @ found[-1])
    return found


def row_power(row: Tensor, found: list[Tensor], length: int) -> Tensor:
    """row M^length: row (D, N), `found` from `squares`."""
    for bit, power in enumerate(found):
        if length >> bit & 1:
            row = (row[:, None] @ power)[:, 0]
    return row


def orbit(row: Tensor, found: list[Tensor], length: int) -> Tensor:
    """row, row M, row M^2 ..: (D, length, N), doubled from power to power."""
    rows = row[:, None]
    for power in found:
        if rows.shape[1] < length:
            rows = torch.cat([rows, rows @ power], dim=1)
    return rows[:, :length]


def column_powers(x: Tensor, found: list[Tensor], counts: Tensor) -> Tensor:
    """M^counts[r] x for every row: x (R, D, N), counts (R,) -> (R, D, N)."""
    for bit, power in enumerate(found):
        moved = torch.einsum("dij,rdj->rdi", power, x)
        x = torch.where((counts >> bit & 1).bool()[:, None, None], moved, x)
    return x


def truncated_kernel(system: DPLR, C: Tensor, length: int) -> Tensor:
    """K (D, length) whose generating function sum K_l z^l is known: C (2, D, n) is C (I - Abar^length).

    At z = exp(-i t), t = 2 pi k / length, with s = sin(t/2), c = cos(t/2) and Q = 1 / (i s - c dt/2 Lambda), diagonal:
    K(z) = dt/2 e^(it/2) (CQB - c CQP PQB / (2/dt + c PQP)), where CQB is the sum over all N states and P's are conj(P)
    on the left. It has no pole at z = -1. A pair of conjugate states adds up to
    (2 i s Re v - 2 c Re(v conj(l))) / (c^2 |l|^2 - s^2 - 2 i s c Re l), v the product of both vectors, l = dt/2 Lambda.

    Source: Gu, Goel and Ré, arXiv:2111.00396, theorem 3 and appendix C.3, with A's low-rank part as in Goel et al.,
    arXiv:2202.09729 (the same P on both sides, so that A stays stable)
    """
    half = torch.arange(length // 2 + 1, device=C.device, dtype=torch.float64) * (torch.pi / length)
    s, c = half.sin().to(C.dtype), half.cos().to(C.dtype)
    poles = system.poles * (system.dt / 2)[:, None]  # l: (2, D, n)
    conjugate = torch.stack([system.P[0], -system.P[1]])
    pairs = [(C, system.B), (C, system.P), (conjugate, system.B), (conjugate, system.P)]
    v = torch.stack([times(x, y) for x, y in pairs], dim=1)  # (2, 4, D, n)
    nodes = max(1, TABLE // poles[0].numel())
    if nodes >= len(s):
        sums = _cauchy(v, poles, s, c)
    else:  # the backward pass makes each table again
        parts = zip(torch.split(s, nodes), torch.split(c, nodes), strict=True)
        sums = torch.cat([checkpoint(_cauchy, v, poles, *part, use_reentrant=False) for part in parts], dim=-1)
    inner = torch.stack([(2 / system.dt)[:, None] + c * sums[0, 3], c * sums[1, 3]])
    value = sums[:, 0] - c * over(times(sums[:, 1], sums[:, 2]), inner)
    turn = torch.stack([c, s])[:, None] * (system.dt / 2)[:, None]  # (2, D, F)
    value = times(turn, value)
    kernel: Tensor = torch.fft.irfft(torch.complex(value[0], value[1]), n=length)
    return kernel


def _cauchy(v: Tensor, poles: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """CQB, CQP, PQB, PQP of v, the products of both sides (2, 4, D, n): (2, 4, D, F). One table of Q for all four."""
    odd, even = 2 * v[0], -2 * (v[0] * poles[0] + v[1] * poles[1])  # of i s, of c
    weights = torch.stack([odd, even]).permute(2, 0, 1, 3).flatten(1, 2)  # (D, 8, n)
    found = weights @ resolvent((poles * poles).sum(0), poles[0], s, c)  # (D, 8, 2F)
    re, im = found.reshape(found.shape[0], 2, 4, 2, -1).permute(3, 1, 2, 0, 4)  # (odd or even, 4, D, F)
    return torch.stack([c * re[1] - s * im[0], s * re[0] + c * im[1]])
