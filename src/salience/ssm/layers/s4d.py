"""S4D: a diagonal state space for each channel, a convolution over whole sequences, a recurrence over steps.

Letters: B batch, L length, D = d_model channels, n complex states of a channel (N/2, one of each conjugate pair).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from salience.ops.long_conv import long_conv
from salience.ssm.layers.hippo import s4d_poles
from salience.ssm.layers.powers import expm1, over, powers, real_sum, times, weighted_sum
from salience.ssm.layers.time_invariant import TimeInvariant, initial_log_dt, refuse_packing
from salience.ssm.layers.valid_steps import ScanOrder


class S4D(TimeInvariant):
    """K_l = 2 Re sum_n C_n (exp(dt A_n) - 1) / A_n exp(l dt A_n); y = GLU(W GELU(K * x + D x)).

    Source: Gu, Gupta, Goel and Ré, arXiv:2206.11893: zero-order hold, B = 1 (only its product with C counts), every
    channel with an A, C and dt of its own. A's real part is -exp(A_re_log). "real" has N real states and no factor 2.
    Deviation: none known in the layer; dropout is left to the block around it.

    Args:    d_model: width of inputs and outputs   d_state: N, even unless init is "real"
             init: where A starts, "lin", "inv", "legs" or "real"   dt_min, dt_max: where dt starts, log-uniform
             backend: taken for the sake of the other layers; FFTs and matrix products have one path
    Raises:  ValueError for sizes, init or dt that make no sense
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "A_re_log", "A_im")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: str = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, d_state, backend)
        poles = s4d_poles(init, d_state).repeat(d_model, 1)  # (D, n)
        self.init, self.n = init, poles.shape[1]
        self.state_shape = 2, d_model, self.n
        self.log_dt = initial_log_dt((d_model,), dt_min, dt_max)
        self.A_re_log = nn.Parameter(torch.log(-poles.real).float())
        self.A_im = nn.Parameter(poles.imag.float()) if init != "real" else None
        planes = 1 if init == "real" else 2
        self.C = nn.Parameter(torch.randn(planes, d_model, self.n) * planes**-0.5)  # of unit variance, as complex

    def system(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """log Abar, Bbar and C (times 2 for what its conjugate adds), planes (2, D, n)."""
        real, dt = -torch.exp(self.A_re_log.to(dtype)), torch.exp(self.log_dt.to(dtype))
        C = self.C.to(dtype)
        if self.A_im is None:
            A, C = torch.stack([real, torch.zeros_like(real)]), torch.cat([C, torch.zeros_like(C)])
        else:
            A, C = torch.stack([real, self.A_im.to(dtype)]), 2 * C
        log_a = A * dt[:, None]
        return log_a, over(expm1(log_a), A), C

    def kernel(self, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """K (D, length)."""
        log_a, B, C = self.system(dtype)
        return real_sum(times(C, B)[:, :, None], log_a, length)[:, 0]

    def scan(self, u: Tensor, mask: Tensor | None, seq_idx: Tensor | None, state: Tensor | None, return_state: bool,
             reverse: bool) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The convolution, and what the state before adds to it."""
        refuse_packing(seq_idx, "S4D")
        length, order = u.shape[1], ScanOrder(mask, reverse and mask is not None)
        log_a, B, C = self.system(u.dtype)
        u, back = order.apply(u), reverse and mask is None
        y = long_conv(u, real_sum(times(C, B)[:, :, None], log_a, length)[:, 0], reverse=back)
        if state is not None:
            w = times(times(C, powers(log_a, log_a.new_ones(1))[..., 0])[:, None], state.to(u.dtype).transpose(0, 1))
            rest = real_sum(w.transpose(1, 2), log_a, length).permute(1, 2, 0)  # (B, L, D)
            y = y + (rest.flip(1) if back else rest)
        last = self._last(u, order, state, log_a, B, back) if return_state else None
        return order.undo(y), last

    def _last(self, u: Tensor, order: ScanOrder, state: Tensor | None, log_a: Tensor, B: Tensor,
              back: bool) -> Tensor:  # fmt: skip
        """The state (B, 2, D, n) after the last valid step."""
        u = order.at_the_end(u)
        recent = u if back else u.flip(1)  # the latest step first
        last = times(B[:, :, None], weighted_sum(recent.permute(2, 0, 1), log_a))  # (2, D, B, n)
        if state is not None:
            steps = u.new_full((u.shape[0],), u.shape[1]) if order.counts is None else order.counts.to(u.dtype)
            last = last + times(powers(log_a, steps).transpose(2, 3), state.to(u.dtype).permute(1, 2, 0, 3))
        return last.permute(2, 0, 1, 3).contiguous()

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x_t = Abar x_{t-1} + Bbar u_t, y_t = Re C x_t."""
        log_a, B, C = self.system(u.dtype)
        a = powers(log_a, log_a.new_ones(1))[..., 0]
        new = times(a[:, None], state.transpose(0, 1)) + B[:, None] * u[:, :, None]  # (2, B, D, n)
        return (C[0] * new[0] - C[1] * new[1]).sum(-1), new.transpose(0, 1)
