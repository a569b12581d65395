"""The linear scan in plain PyTorch, one step after the other, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.ops.derivatives import pullback
from salience.ops.segment_codes import ABSENT, RESTART, step_codes, valid_before


def forward(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
            reverse: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x (B, L, planes, D) and the last state (B, planes, D); see `linear_scan_planes`, all tensors of one dtype.

    `unbind` and not indexing: the gradient of x[:, t] would be a tensor of full size for each step.
    """
    planes, a, b = b.shape[2], joined(a), joined(b)
    codes = step_codes(mask, seq_idx, reverse)
    if codes is not None:  # masked steps must have no effect, even if they are NaN
        absent = (codes.flip(1) if reverse else codes) == ABSENT
        b = b.masked_fill(absent[..., None], 0)
        a = a.masked_fill(absent[..., None], 0) if a.dim() == 3 else a
    steps = list(zip(a.unbind(1) if a.dim() == 3 else [a] * b.shape[1], b.unbind(1), strict=True))
    x = torch.zeros_like(b[:, 0]) if initial_state is None else joined(initial_state)
    found: list[Tensor] = []
    for t, (a_t, b_t) in enumerate(reversed(steps) if reverse else steps):
        entered = x if codes is None else torch.where(codes[:, t, None] == RESTART, 0, x)
        new = a_t * entered + b_t
        x = new if codes is None else torch.where(codes[:, t, None] == ABSENT, x, new)
        found.append(new)
    y = torch.stack(found[::-1] if reverse else found, dim=1)
    return planes_of(y if codes is None else y.masked_fill(absent[..., None], 0), planes), planes_of(x, planes)


def gradients(dx: Tensor | None, dstate: Tensor | None, x: Tensor, a: Tensor, initial_state: Tensor | None,
              mask: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of a, b and the initial state, in planes and differentiable again; x is the scan's output.

    The scan is linear in b and in the initial state, so their gradients need neither. With g the gradient of b, the
    gradient of a is g conj(the state before the step).
    """
    state = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state
    run = lambda b, h: forward(a, b, h, mask, seq_idx, reverse)  # noqa: E731
    db, dinitial = pullback(run, (torch.zeros_like(x), state), (dx, dstate))
    if db is None:
        return None, None, dinitial
    entered = _entered(x, state, step_codes(mask, seq_idx, reverse), reverse)
    da = planes_of(joined(db) * joined(entered).conj(), x.shape[2])
    return (da if a.dim() == 4 else da.sum((0, 1))), db, dinitial


def _entered(x: Tensor, state: Tensor, codes: Tensor | None, reverse: bool) -> Tensor:
    """(B, L, planes, D): the state before each step, from x and the state before the first."""
    states = torch.cat([state[:, None], x.flip(1) if reverse else x], dim=1)  # one before the first step's
    if codes is None:
        entered = states[:, :-1]
    else:
        before = (valid_before(codes != ABSENT) + 1)[..., None, None]
        entered = states.gather(1, before.expand_as(x)).masked_fill((codes == RESTART)[..., None, None], 0)
    return entered.flip(1) if reverse else entered


def planes_of(x: Tensor, planes: int) -> Tensor:
    """(..., D) -> (..., planes, D)."""
    if planes == 1:
        return x.unsqueeze(-2)
    if x.is_complex():
        return torch.stack([x.real, x.imag], dim=-2)
    return torch.stack([x, torch.zeros_like(x)], dim=-2)


def joined(x: Tensor) -> Tensor:
    """(..., planes, D) -> (..., D)."""
    return torch.complex(x.select(-2, 0), x.select(-2, 1)) if x.shape[-2] == 2 else x.squeeze(-2)
