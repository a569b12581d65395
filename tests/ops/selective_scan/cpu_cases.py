"""Random calls of the scan, and how far a path is from the reference computed in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from salience.ops.selective_scan import selective_scan

LEAVES = ("u", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state")


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call."""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    z: Tensor | None = None
    dt_bias: Tensor | None = None
    dt_softplus: bool = True
    initial_state: Tensor | None = None
    mask: Tensor | None = None
    seq_idx: Tensor | None = None
    reverse: bool = False

    def there(self) -> list[str]:
        """Names of the differentiable arguments that were given."""
        return [name for name in LEAVES if getattr(self, name) is not None]

    def double(self) -> Call:
        """The same numbers in float64."""
        return replace(self, **{name: getattr(self, name).double() for name in self.there()})

    def run(self, backend: str) -> tuple[Tensor, Tensor]:
        """y and the state."""
        return selective_scan(**vars(self), return_state=True, backend=backend)

    def everything(self, backend: str, *, dstate: bool = True) -> dict[str, Tensor]:
        """Outputs and gradients, the latter for fixed random gradients of y (and of the state) that any dtype holds."""
        call = replace(self, **{name: getattr(self, name).detach().requires_grad_() for name in self.there()})
        y, state = call.run(backend)
        g = torch.Generator().manual_seed(99)
        given = [torch.randint(-8, 9, x.shape, generator=g).to(x.dtype) / 4 for x in (y, state)]
        outs = [y, state] if dstate else [y]
        leaves = [getattr(call, name) for name in self.there()]
        found = torch.autograd.grad(outs, leaves, given[: len(outs)])
        return {"y": y.detach(), "state": state.detach(), **dict(zip(self.there(), found, strict=True))}


def random_call(*, batch: int = 2, length: int = 70, channels: int = 21, states: int = 5, groups: int = 1,
                dtype: torch.dtype = torch.float32, optional: bool = True, softplus: bool = True, mask: bool = False,
                seq_idx: bool = False, reverse: bool = False, layout: str = "plain", scale: float = 1.0,
                seed: int = 0) -> Call:  # fmt: skip
    """Standard normal inputs; sequences contiguous ("plain"), half of something wider, or (B, D, L) turned round."""
    g = torch.Generator().manual_seed(seed)

    def sequence(*tail: int) -> Tensor:
        if layout == "turned":
            return torch.randn(batch, *tail, length, generator=g).to(dtype).movedim(-1, 1)
        if layout == "half":
            return torch.randn(batch, length, *tail[:-1], 2 * tail[-1], generator=g).to(dtype)[..., tail[-1] :]
        return torch.randn(batch, length, *tail, generator=g).to(dtype)

    def small(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=g)
        return x.double() if dtype == torch.float64 else x

    dt = sequence(channels) * scale
    return Call(
        u=sequence(channels),
        dt=dt if softplus else dt.abs(),
        A=-small(channels, states).exp(),
        B=sequence(groups, states),
        C=sequence(groups, states),
        D=small(channels) if optional else None,
        z=sequence(channels) if optional else None,
        dt_bias=small(channels) if optional and softplus else None,
        dt_softplus=softplus,
        initial_state=small(batch, channels, states) if optional else None,
        mask=torch.rand(batch, length, generator=g) > 0.3 if mask else None,
        seq_idx=(torch.rand(batch, length, generator=g) > 0.8).cumsum(1) if seq_idx else None,
        reverse=reverse,
    )


def error(got: Tensor, want: Tensor) -> float:
    """The largest difference, of the largest value."""
    return float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp_min(1e-30))
