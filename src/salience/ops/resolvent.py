"""1 / (c^2 m - s^2 - 2 i s c r): the terms of S4's kernel, for each state and each node of the unit circle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import refuse_tangents, transformed
from salience.ops.derivatives import pullback


def resolvent(m: Tensor, r: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """Table of the resolvent, real parts before imaginary ones.

    Its gradient needs only the table; autograd would keep five more tensors.

    Args:    m, r: (D, n), float32 or float64: a pole's squared magnitude and its real part   s, c: (F,)
    Returns: (D, n, 2F). Differentiable in m and r
    """
    table: Tensor = _plain(m, r, s, c) if transformed() else resolvent_fwd(m, r, s, c)
    return table


def _plain(m: Tensor, r: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """Plain PyTorch version, for derivatives and transformations that the operator has no rule for."""
    real, imaginary = m[..., None] * (c * c) - s * s, r[..., None] * (2 * s * c)  # of conj(d)
    return torch.cat([real, imaginary], dim=-1) / (real * real + imaginary * imaginary).repeat(1, 1, 2)


@torch.library.custom_op("salience::resolvent_fwd", mutates_args=())
def resolvent_fwd(m: Tensor, r: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """1/d = conj(d) / |d|^2."""
    refuse_tangents()
    table = m.new_empty(*m.shape, 2 * len(s))
    real, imaginary = table.chunk(2, dim=-1)
    torch.mul(m[..., None], c * c, out=real).sub_(s * s)
    torch.mul(r[..., None], 2 * s * c, out=imaginary)  # of conj(d)
    scale = torch.addcmul(real * real, imaginary, imaginary).reciprocal_()
    real.mul_(scale)
    imaginary.mul_(scale)
    return table


@torch.library.custom_op("salience::resolvent_bwd", mutates_args=())
def resolvent_bwd(g: Tensor, table: Tensor, s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """d(1/d) = -(1/d)^2 dd; the gradients of m and r."""
    refuse_tangents()
    (g_re, g_im), (re, im) = g.chunk(2, dim=-1), table.chunk(2, dim=-1)
    square = (re * re).addcmul_(im, im, value=-1)
    cross = (re * im).mul_(2)
    of_real = (g_re * square).addcmul_(g_im, cross)  # times -1
    of_imaginary = cross.mul_(g_re).addcmul_(g_im, square, value=-1)
    return (of_real @ (c * c)).neg_(), (of_imaginary @ (2 * s * c)).neg_()


@resolvent_fwd.register_fake
def _fwd_fake(m: Tensor, r: Tensor, s: Tensor, c: Tensor) -> Tensor:
    return m.new_empty(*m.shape, 2 * s.shape[0])


@resolvent_bwd.register_fake
def _bwd_fake(g: Tensor, table: Tensor, s: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return table.new_empty(table.shape[:2]), table.new_empty(table.shape[:2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


def _differentiate(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    table, m, r, s, c = ctx.saved_tensors
    if transformed() or torch.is_grad_enabled():  # a batch of gradients, say, or create_graph
        dm, dr = pullback(lambda m, r: (_plain(m, r, s, c),), (m, r), (g,), ctx.needs_input_grad[:2])
    else:
        dm, dr = resolvent_bwd(g, table, s, c)
    return dm, dr, None, None


resolvent_fwd.register_autograd(_differentiate, setup_context=_keep)
