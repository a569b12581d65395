"""Sums over powers of complex numbers, in real arithmetic and in memory that goes with sqrt(L), not with L.

z^l for l = 0 .. L-1 is z^(qT) z^r with T about sqrt(L): a table of coarse powers and one of fine ones, joined by a
matrix product. Nothing of size (D, N, L) is ever made, and most of the work is a product of matrices. Complex numbers
are two planes, real before imaginary, on the first axis; z is given by its logarithm.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from salience.core.backend import free


def powers(log_z: Tensor, exponents: Tensor) -> Tensor:
    """z^e: log_z (2, ..., N), exponents (E,) -> (2, ..., N, E)."""
    size, angle = torch.exp(log_z[0, ..., None] * exponents), log_z[1, ..., None] * exponents
    return torch.stack([size * torch.cos(angle), size * torch.sin(angle)])


def times(x: Tensor, y: Tensor) -> Tensor:
    """The complex product of planes (2, ...)."""
    return torch.stack([x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]])


def expm1(z: Tensor) -> Tensor:
    """e^z - 1 of planes, without cancellation where z is small."""
    half = torch.sin(z[1] / 2)
    return torch.stack([torch.expm1(z[0]) * torch.cos(z[1]) - 2 * half * half, torch.exp(z[0]) * torch.sin(z[1])])


def over(x: Tensor, y: Tensor) -> Tensor:
    """The complex quotient of planes (2, ...)."""
    return times(x, torch.stack([y[0], -y[1]])) / (y[0] * y[0] + y[1] * y[1])


def real_sum(w: Tensor, log_z: Tensor, length: int) -> Tensor:
    """Re sum over n of w_n z_n^l for l < length: w (2, D, R, N), log_z (2, D, N) -> (D, R, length)."""
    if free(length):
        steps = torch.arange(length, device=log_z.device, dtype=log_z.dtype)
        table = powers(log_z, steps)  # (2, D, N, L): the way that asks nothing about the length
        return w[0] @ table[0] - w[1] @ table[1]
    fine, coarse = _tables(log_z, length)  # (2, D, N, T), (2, D, N, Q)
    started = times(w[:, :, :, None], coarse.transpose(2, 3)[:, :, None])  # (2, D, R, Q, N)
    left = torch.cat([started[0], -started[1]], dim=-1).flatten(1, 2)  # (D, R Q, 2N)
    found = left @ torch.cat([fine[0], fine[1]], dim=1)  # (D, R Q, T)
    return found.reshape(*w.shape[1:3], coarse.shape[3] * fine.shape[3])[..., :length]


def weighted_sum(u: Tensor, log_z: Tensor) -> Tensor:
    """Sum over l of u_l z_n^l: u (D, R, L), log_z (2, D, N) -> (2, D, R, N)."""
    fine, coarse = _tables(log_z, u.shape[2])
    steps, parts = fine.shape[3], coarse.shape[3]
    rows = F.pad(u, (0, steps * parts - u.shape[2])).reshape(u.shape[0], u.shape[1] * parts, steps)  # (D, R Q, T)
    found = rows @ torch.cat([fine[0], fine[1]], dim=1).transpose(1, 2)  # (D, R Q, 2N)
    partial = torch.stack(found.reshape(*u.shape[:2], parts, found.shape[-1]).chunk(2, dim=-1))  # (2, D, R, Q, N)
    return times(partial, coarse.transpose(2, 3)[:, :, None]).sum(3)


def _tables(log_z: Tensor, length: int) -> tuple[Tensor, Tensor]:
    steps = math.isqrt(length - 1) + 1
    count = torch.arange(max(steps, -(-length // steps)), device=log_z.device, dtype=log_z.dtype)
    return powers(log_z, count[:steps]), powers(log_z, count[: -(-length // steps)] * steps)
