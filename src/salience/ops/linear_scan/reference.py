"""The linear scan as it is written: one step after the other, in PyTorch, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from salience.ops.steps import ABSENT, RESTART, step_codes


def reference(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
              reverse: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x (B, L, D) and the last state (B, D); all tensors of one dtype, a (D,) or (B, L, D).

    `unbind` and not indexing: the gradient of x[:, t] would be a tensor of full size for each step.
    """
    codes = step_codes(mask, seq_idx, reverse)
    if codes is not None:  # what is absent must not leak, not even as NaN
        absent = (codes.flip(1) if reverse else codes) == ABSENT
        b = b.masked_fill(absent[..., None], 0)
        a = a.masked_fill(absent[..., None], 0) if a.dim() == 3 else a
    steps = list(zip(a.unbind(1) if a.dim() == 3 else [a] * b.shape[1], b.unbind(1), strict=True))
    x = torch.zeros_like(b[:, 0]) if initial_state is None else initial_state
    found: list[Tensor] = []
    for t, (a_t, b_t) in enumerate(reversed(steps) if reverse else steps):
        entered = x if codes is None else torch.where(codes[:, t, None] == RESTART, 0, x)
        new = a_t * entered + b_t
        x = new if codes is None else torch.where(codes[:, t, None] == ABSENT, x, new)
        found.append(new)
    y = torch.stack(found[::-1] if reverse else found, dim=1)
    return (y if codes is None else y.masked_fill(absent[..., None], 0)), x
