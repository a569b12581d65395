"""Random calls of the convolution, and what they must give: step after step, straight from the definition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arguments of one call."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    activation: str | None = None
    initial_state: Tensor | None = None
    mask: Tensor | None = None
    seq_idx: Tensor | None = None
    reverse: bool = False

    def run(self, backend: str = "auto") -> tuple[Tensor, Tensor]:
        """y and the state."""
        from salience.ops.causal_conv1d import causal_conv1d

        return causal_conv1d(**vars(self), return_state=True, backend=backend)

    def leaves(self) -> Call:
        """The same with leaves of their own that want gradients; x keeps its strides."""
        made = {n: getattr(self, n).detach().requires_grad_() for n in self.wanted()}
        return replace(self, **made)

    def wanted(self) -> list[str]:
        """Names of the differentiable arguments that are there."""
        return [n for n in ("x", "weight", "bias", "initial_state") if getattr(self, n) is not None]

    def gradients(self, backend: str, dy: Tensor, dstate: Tensor | None) -> dict[str, Tensor]:
        """The gradients for given ones of y and of the state."""
        call = self.leaves()
        y, state = call.run(backend)
        outs, given = ([y], [dy]) if dstate is None else ([y, state], [dy, dstate])
        leaves = [getattr(call, n) for n in self.wanted()]
        return dict(zip(self.wanted(), torch.autograd.grad(outs, leaves, given), strict=True))


def random_call(*, batch: int = 2, length: int = 13, channels: int = 5, width: int = 4,
                dtype: torch.dtype = torch.float32, bias: bool = True, activation: str | None = "silu",
                initial: bool = False, mask: bool = False, seq_idx: bool = False, reverse: bool = False,
                layout: str = "plain", seed: int = 0) -> Call:  # fmt: skip
    """Standard normal inputs; x contiguous, half of something wider, or (B, D, L) turned round."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g).to(dtype)

    x = {
        "plain": lambda: normal(batch, length, channels),
        "half": lambda: normal(batch, length, 2 * channels)[..., :channels],
        "turned": lambda: normal(batch, channels, length).transpose(1, 2),
        "spread": lambda: normal(batch, length, 3 * channels)[..., 1::3],
        "expanded": lambda: normal(1, length, 1).expand(batch, length, channels),
    }[layout]()
    weight = normal(channels, width)
    ids = torch.randint(0, 4, (batch, length), generator=g).div(3, rounding_mode="floor").cumsum(1)
    return Call(
        x=x, weight=weight if layout == "plain" else weight.T.contiguous().T, bias=normal(channels) if bias else None,
        activation=activation, initial_state=normal(batch, width - 1, channels) if initial else None,
        mask=torch.rand(batch, length, generator=g) > 0.3 if mask else None, seq_idx=ids if seq_idx else None,
        reverse=reverse,
    )  # fmt: skip


def poisoned(call: Call) -> Call:
    """NaN wherever a step is masked, in a tensor of the same strides."""
    if call.mask is None:
        return call
    x = torch.empty_strided(call.x.shape, call.x.stride(), dtype=call.x.dtype) if 0 not in call.x.stride() else None
    x = call.x.clone() if x is None else x.copy_(call.x)
    x[~call.mask] = torch.nan
    return replace(call, x=x)


def by_definition(call: Call) -> tuple[Tensor, Tensor]:
    """y and the state in float64, by three loops: a list of what is in the window, step after step."""
    batch, length, channels = call.x.shape
    width = call.weight.shape[1]
    y = torch.zeros(batch, length, channels, dtype=torch.float64)
    state = torch.zeros(batch, width - 1, channels, dtype=torch.float64)
    zero = torch.zeros(channels, dtype=torch.float64)
    for b in range(batch):
        window: list[Any] = [zero] * (width - 1)
        if call.initial_state is not None:
            window = list(call.initial_state[b].double())
        latest = None
        for t in reversed(range(length)) if call.reverse else range(length):
            if call.mask is not None and not call.mask[b, t]:
                continue
            if call.seq_idx is not None:
                if latest is not None and int(call.seq_idx[b, t]) != latest:
                    window = [zero] * (width - 1)
                latest = int(call.seq_idx[b, t])
            window = [*window, call.x[b, t].double()]
            y[b, t] = sum(w * v for w, v in zip(call.weight.double().unbind(1), window, strict=True))
            if call.bias is not None:
                y[b, t] += call.bias.double()
            if call.activation == "silu":
                y[b, t] *= torch.sigmoid(y[b, t])
            window = window[1:]
        state[b] = torch.stack(window)
    return y, state
