"""What S4, S4D and S5 share: the block around a system that does not look at its input, and its state.

y = GLU(W GELU(ssm(x) + D x)), as the published blocks have it around their kernels.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.backend import transformed
from salience.core.gradients import no_gradients
from salience.ssm.layers.layer_state import LayerState
from salience.ssm.layers.s6 import check_input, whole_number


@dataclass(eq=False)
class LinearState(LayerState):
    """planes: (B, 2, ...), real before imaginary, float32 at least."""

    planes: Tensor


class TimeInvariant(nn.Module):
    """The block; a layer says how its system runs over a sequence (`scan`) and a step (`advance`), in float32 at least.

    Complex numbers are planes, real before imaginary, so that a layer can be cast as any other. Under autocast the
    system runs in float32.
    """

    state_shape: tuple[int, ...]  # of a row's state, planes first

    def __init__(self, d_model: int, d_state: int, backend: str) -> None:
        super().__init__()
        self.d_model, self.d_state = whole_number("d_model", d_model), whole_number("d_state", d_state)
        self.backend = backend
        self.D = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, 2 * d_model)

    def scan(self, u: Tensor, mask: Tensor | None, seq_idx: Tensor | None, state: Tensor | None, return_state: bool,
             reverse: bool) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """u (B, L, d_model) -> y without the skip, and the state where it is asked for."""
        raise NotImplementedError

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, d_model), state (B, 2, ...) -> y without the skip, and the new state."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
        state: LinearState | None = None,
        return_state: bool = False,
        reverse: bool = False,
    ) -> Tensor | tuple[Tensor, LinearState]:
        """Process a sequence, or the next chunk of one.

        Args:    x: (B, L, d_model)   mask: (B, L) bool, True for valid steps; a masked one is absent, wherever it is,
                 and its y is 0
                 seq_idx: (B, L) integer, a new sequence beginning where it changes: S5 alone knows it
                 state: of the chunk before, left as it is   reverse: from the last step to the first
        Returns: y (B, L, d_model); with return_state also the state after x, differentiable
        Raises:  ValueError for shapes, dtypes or devices that disagree
        """
        check_input(x, self.d_model, mask)
        planes = None if state is None else state.planes
        if planes is not None and tuple(planes.shape) != (x.shape[0], *self.state_shape):
            wanted = (x.shape[0], *self.state_shape)
            raise ValueError(f"state must hold planes of {wanted}, not {tuple(planes.shape)}.")
        with without_autocast(x):
            u = x.to(self.compute_dtype(x))
            if mask is not None:
                u = u.masked_fill(~mask[..., None], 0)  # not even NaN gets through
            y, last = self.scan(u, mask, seq_idx, planes, return_state, reverse)
            y = torch.addcmul(y, u, self.D.to(u.dtype))
        out = self.leave(y, x)
        if mask is not None:
            out = out.masked_fill(~mask[..., None], 0)
        if not return_state:
            return out
        assert last is not None
        return out, LinearState(last)

    @no_gradients
    def step(self, x: Tensor, state: LinearState) -> Tensor:
        """One more step: x (B, d_model) -> y (B, d_model); `state` moves on in place. No gradients."""
        with without_autocast(x):
            u = x.to(self.compute_dtype(x))
            y, new = self.advance(u, state.planes.to(u.dtype))
            y = torch.addcmul(y, u, self.D.to(u.dtype))
        state.planes.copy_(new)
        return self.leave(y, x)

    def init_state(self, batch: int, *, dtype: torch.dtype | None = None) -> LinearState:
        """The state before the first step, zeros: float64 for float64 weights (or `dtype`), float32 otherwise."""
        wide = torch.float64 if (self.D.dtype if dtype is None else dtype) == torch.float64 else torch.float32
        return LinearState(self.D.new_zeros(batch, *self.state_shape, dtype=wide))

    def leave(self, y: Tensor, x: Tensor) -> Tensor:
        """GLU(W GELU(y)), in the dtype of x and the weights."""
        y = self.out_proj(F.gelu(y).to(x.dtype))
        if transformed():  # the tangent of torch's own has no derivative
            value, gate = y.chunk(2, dim=-1)
            return value * gate.sigmoid()
        return F.glu(y, dim=-1)

    def compute_dtype(self, x: Tensor) -> torch.dtype:
        """What the system runs in."""
        return torch.float64 if torch.float64 in (x.dtype, self.D.dtype) else torch.float32


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast off for x's device; a device without (meta) refuses to be asked."""
    device = x.device.type
    there = torch.amp.is_autocast_available(device)
    return torch.autocast(device_type=device, enabled=False) if there else contextlib.nullcontext()


def initial_log_dt(shape: tuple[int, ...], dt_min: float, dt_max: float) -> nn.Parameter:
    """log dt, uniform between the logarithms of both."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must be 0 < dt_min <= dt_max, not {dt_min!r} and {dt_max!r}.")
    spread = torch.rand(shape)
    return nn.Parameter(math.log(dt_min) + spread * (math.log(dt_max) - math.log(dt_min)))


def refuse_packing(seq_idx: Tensor | None, layer: str) -> None:
    """A convolution has no place where it begins again."""
    if seq_idx is not None:
        raise ValueError(f"seq_idx must be None: {layer} is a convolution, S5 and Mamba take packed sequences.")
