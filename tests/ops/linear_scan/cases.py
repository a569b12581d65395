"""Random calls of the linear scan, and the recurrence from its definition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from salience.ops.linear_scan import linear_scan

NAMES = ("a", "b", "initial_state")


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call."""

    a: Tensor
    b: Tensor
    initial_state: Tensor | None = None
    mask: Tensor | None = None
    seq_idx: Tensor | None = None
    reverse: bool = False

    def leaves(self) -> list[str]:
        """Names of the differentiable arguments that were given."""
        return [name for name in NAMES if getattr(self, name) is not None]

    def everything(self, backend: str, *, dstate: bool = True) -> dict[str, Tensor]:
        """Outputs and gradients, the latter of a fixed random weighting of the outputs; `backend` "loop" is `loop`."""
        call = replace(self, **{name: getattr(self, name).detach().requires_grad_() for name in self.leaves()})
        x, state = loop(call) if backend == "loop" else linear_scan(**vars(call), return_state=True, backend=backend)
        g = torch.Generator().manual_seed(99)
        outs = [x, state] if dstate else [x]
        weights = [torch.randn(out.shape, generator=g, dtype=torch.float64) for out in outs]
        parts = [torch.view_as_real(out).sum(-1) if out.is_complex() else out for out in outs]
        loss = sum((weight * part).sum() for weight, part in zip(weights, parts, strict=True))
        assert isinstance(loss, Tensor)
        found = torch.autograd.grad(loss, [getattr(call, name) for name in self.leaves()])
        return {"x": x.detach(), "state": state.detach(), **dict(zip(self.leaves(), found, strict=True))}

    def double(self) -> Call:
        """The same numbers in double precision."""
        wide = {name: getattr(self, name) for name in self.leaves()}
        return replace(self, **{n: x.to(torch.promote_types(x.dtype, torch.float64)) for n, x in wide.items()})


def random_call(*, batch: int = 2, length: int = 23, width: int = 21, dtype: torch.dtype = torch.float32,
                varying: bool = False, initial: bool = True, mask: bool = False, packed: bool = False,
                reverse: bool = False, halves: bool = False) -> Call:  # fmt: skip
    """Factors of magnitude below 1; `halves`: sequences are half of something wider."""
    g = torch.Generator().manual_seed(length + width)

    def draw(*shape: int) -> Tensor:
        wide = torch.randn(*shape[:-1], shape[-1] * (2 if halves else 1), generator=g, dtype=dtype)
        return wide[..., -shape[-1] :]

    a = draw(batch, length, width) if varying else draw(width)
    return Call(
        a=a / (1 + a.abs()),
        b=draw(batch, length, width),
        initial_state=draw(batch, width) if initial else None,
        mask=torch.rand(batch, length, generator=g) > 0.3 if mask else None,
        seq_idx=(torch.rand(batch, length, generator=g) > 0.7).cumsum(1) if packed else None,
        reverse=reverse,
    )


def loop(call: Call) -> tuple[Tensor, Tensor]:
    """x and the last state: row after row, step after step, absent steps left out."""
    batch, length, width = call.b.shape
    xs, states = [], []
    for row in range(batch):
        h = call.b.new_zeros(width) if call.initial_state is None else call.initial_state[row]
        found = [torch.zeros_like(h)] * length
        before: Any = None
        for t in reversed(range(length)) if call.reverse else range(length):
            if call.mask is not None and not call.mask[row, t]:
                continue
            now = None if call.seq_idx is None else int(call.seq_idx[row, t])
            if before is not None and now != before:
                h = torch.zeros_like(h)
            before = now
            h = (call.a if call.a.dim() == 1 else call.a[row, t]) * h + call.b[row, t]
            found[t] = h
        xs.append(torch.stack(found))
        states.append(h)
    return torch.stack(xs), torch.stack(states)


def error(got: Tensor, want: Tensor) -> float:
    """The largest difference, of the largest value; 1e9 where something is not finite."""
    if not got.isfinite().all():
        return 1e9
    want = want.to(torch.promote_types(want.dtype, torch.float64))
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))
