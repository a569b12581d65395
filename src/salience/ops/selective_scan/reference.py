"""The selective scan in plain PyTorch, one step after the other. All other backends are tested against it.

It reads like Algorithm 2 of the paper (arXiv 2312.00752), with the discretisation of the official kernel: zero-order
hold for A, Euler for B. Autograd differentiates it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from salience.ops.segment_codes import ABSENT, RESTART, step_codes
from salience.ops.selective_scan.checks import ScanInputs, grouped, sequence_dtype


def forward(given: ScanInputs) -> tuple[Tensor, Tensor]:
    """y (B, L, D) in u.dtype and the state after the last step (B, D, N); see `selective_scan`.

    B, C: (B, L, G, N) or (B, L, N). With a complex A, B and C are complex too and y is twice the real part of C h.
    """
    u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx, dt_softplus, reverse = given
    compute = sequence_dtype(given)
    B, C, codes = grouped(B), grouped(C), step_codes(mask, seq_idx, reverse)
    if codes is not None:  # masked steps must have no effect, even if they are NaN
        absent = (codes.flip(1) if reverse else codes) == ABSENT
        u, dt, z = (None if x is None else x.masked_fill(absent[..., None], 0) for x in (u, dt, z))  # type: ignore[assignment]
        B, C = (x.masked_fill(absent[..., None, None], 0) for x in (B, C))
    kind = A.to(torch.complex128 if compute == torch.float64 else torch.complex64).dtype if A.is_complex() else compute
    x, A, B, C = u.to(compute), A.to(kind), B.to(kind), C.to(kind)
    step = dt.to(compute) if dt_bias is None else dt.to(compute) + dt_bias.to(compute)
    step = F.softplus(step) if dt_softplus else step

    shape = u.shape[0], u.shape[2], A.shape[1]
    state = torch.zeros(shape, dtype=kind, device=u.device) if initial_state is None else initial_state.to(kind)
    # `unbind` and not indexing: the gradient of x[:, t] would be a tensor of full size for each step.
    rows = list(zip(step.unbind(1), x.unbind(1), B.unbind(1), C.unbind(1), strict=True))
    found: list[Tensor] = []
    for t, (dt_t, x_t, B_t, C_t) in enumerate(reversed(rows) if reverse else rows):
        entered = state if codes is None else torch.where(codes[:, t, None, None] == RESTART, 0, state)
        new = torch.exp(dt_t[..., None] * A) * entered + (dt_t * x_t)[..., None] * spread(B_t, u.shape[2])
        state = new if codes is None else torch.where(codes[:, t, None, None] == ABSENT, state, new)
        found.append((state * spread(C_t, u.shape[2])).sum(-1))
    y = torch.stack(found[::-1] if reverse else found, dim=1)
    if A.is_complex():  # the other half of the spectrum is conjugate
        y = 2 * y.real
    if D is not None:
        y = y + D.to(compute) * x
    if z is not None:
        y = y * F.silu(z.to(compute))
    if codes is not None:
        y = y.masked_fill(absent[..., None], 0)
    return y.to(u.dtype), state


def step(state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
         dt_bias: Tensor | None, dt_softplus: bool) -> Tensor:  # fmt: skip
    """y (B, D) of one more step; `state` (B, D, N) moves on in place. B, C: (B, G, N)."""
    u, dt, B, C = (x[:, None] for x in (u, dt, B, C))
    z = None if z is None else z[:, None]
    y, new = forward(ScanInputs(u, dt, A, B, C, D, z, dt_bias, state, None, None, dt_softplus, False))
    state.copy_(new)
    return y[:, 0]


def spread(x: Tensor, channels: int) -> Tensor:
    """(B, G, N) of groups -> (B, D, N) of channels, channel d having group d // (D / G)."""
    return x.repeat_interleave(channels // x.shape[1], dim=1)
