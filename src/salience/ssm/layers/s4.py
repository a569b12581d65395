"""S4: a normal plus low-rank state space for each channel, its kernel by Cauchy sums, a recurrence over steps.

Letters: B batch, L length, D = d_model channels, n complex states of a channel (N/2, one of each conjugate pair).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from salience.ops.long_conv import long_conv
from salience.ssm.layers.dplr import DPLR, column_powers, orbit, row_power, squares, truncated_kernel
from salience.ssm.layers.hippo import legs, low_rank, normal_part
from salience.ssm.layers.time_invariant import TimeInvariant, initial_log_dt, refuse_packing
from salience.ssm.layers.valid_steps import ScanOrder

SPAN_BIT = 8
SPAN = 1 << SPAN_BIT  # steps for which powers times a vector are held at once, a power of two


class S4(TimeInvariant):
    """y = GLU(W GELU(K * x + D x)), K of A = V (Lambda - P P*) V* by the bilinear rule; A starts as HiPPO-LegS.

    Source: Gu, Goel and Ré, arXiv:2111.00396; the low-rank part has P on both sides (Goel et al., arXiv:2202.09729).
    Deviations: every channel has an A, P and B of its own; C is kept as it is and truncated to the length at hand, so
    that a layer knows no longest length.

    Args:    d_model: width of inputs and outputs   d_state: N, even   dt_min, dt_max: where dt starts, log-uniform
             backend: taken for the sake of the other layers; FFTs and matrix products have one path
    Raises:  ValueError for an odd d_state, or when dt_min is above dt_max
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "A_re_log", "A_im", "P", "B")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, d_state, backend)
        if d_state % 2:
            raise ValueError(f"d_state must be an even number of at least 2, not {d_state!r}.")
        self.n = d_state // 2
        self.state_shape = 2, d_model, self.n
        poles, V = normal_part(d_state)
        P, B = (V.mH @ x.to(V.dtype) for x in (low_rank(d_state), legs(d_state)[1]))

        def everywhere(x: Tensor) -> nn.Parameter:
            return nn.Parameter(torch.stack([x.real, x.imag])[:, None].repeat(1, d_model, 1).float())  # (2, D, n)

        self.log_dt = initial_log_dt((d_model,), dt_min, dt_max)
        self.A_re_log = nn.Parameter(torch.log(-poles.real).repeat(d_model, 1).float())
        self.A_im = nn.Parameter(poles.imag.repeat(d_model, 1).float())
        self.P, self.B = everywhere(P), everywhere(B)
        self.C = nn.Parameter(torch.randn(2, d_model, self.n) * 0.5**0.5)  # of unit variance, as complex

    def system(self, dtype: torch.dtype) -> DPLR:
        """The continuous system."""
        poles = torch.stack([-torch.exp(self.A_re_log.to(dtype)), self.A_im.to(dtype)])
        P, B, C = (x.to(dtype) for x in (self.P, self.B, self.C))
        return DPLR(poles=poles, P=P, B=B, C=C, dt=torch.exp(self.log_dt.to(dtype)))

    def kernel(self, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """K (D, length)."""
        system = self.system(dtype)
        return self._kernel(system, squares(system.matrix(), length), length)

    def _kernel(self, system: DPLR, found: list[Tensor], length: int) -> Tensor:
        left = row_power(system.readout(), found, length)  # C Abar^length, on [Re x, Im x]
        real, imaginary = (left / 2).chunk(2, dim=-1)
        return truncated_kernel(system, system.C - torch.stack([real, -imaginary]), length)

    def scan(self, u: Tensor, mask: Tensor | None, seq_idx: Tensor | None, state: Tensor | None, return_state: bool,
             reverse: bool) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The convolution, and what the state before adds to it."""
        refuse_packing(seq_idx, "S4")
        length, order = u.shape[1], ScanOrder(mask, reverse and mask is not None)
        system = self.system(u.dtype)
        found = squares(system.matrix(), length)
        u, back = order.apply(u), reverse and mask is None
        y = long_conv(u, self._kernel(system, found, length), reverse=back)
        x = None if state is None else state.to(u.dtype).transpose(1, 2).flatten(2)  # (B, D, 2n)
        if x is not None:
            rest = self._rest(x, system, found, length)
            y = y + (rest.flip(1) if back else rest)
        last = self._last(u, order, x, system, found, back) if return_state else None
        return order.undo(y), last

    def _rest(self, x: Tensor, system: DPLR, found: list[Tensor], length: int) -> Tensor:
        """C Abar^(l+1) x for l < length: (B, L, D)."""
        rows = orbit((system.readout()[:, None] @ found[0])[:, 0], found, min(length, SPAN))  # (D, SPAN, 2n)
        parts = []
        for first in range(0, length, SPAN):
            parts.append(torch.einsum("dln,bdn->bld", rows[:, : length - first], x))
            if first + SPAN < length:
                x = torch.einsum("dij,bdj->bdi", found[SPAN_BIT], x)
        return torch.cat(parts, dim=1)

    def _last(self, u: Tensor, order: ScanOrder, x: Tensor | None, system: DPLR, found: list[Tensor],
              back: bool) -> Tensor:  # fmt: skip
        """The state (B, 2, D, n) after the last valid step."""
        u = order.at_the_end(u)
        recent = u if back else u.flip(1)  # the latest step first
        columns = orbit(system.drive(), [power.mT for power in found], min(u.shape[1], SPAN))  # (D, SPAN, 2n)
        last: Tensor | None = None
        for first in reversed(range(0, u.shape[1], SPAN)):
            part = recent[:, first : first + SPAN]
            added = torch.einsum("bld,dln->bdn", part, columns[:, : part.shape[1]])
            last = added if last is None else torch.einsum("dij,bdj->bdi", found[SPAN_BIT], last) + added
        assert last is not None
        if x is not None:
            counts = torch.full_like(u[:, 0, 0], u.shape[1], dtype=torch.long) if order.counts is None else order.counts
            last = last + column_powers(x, found, counts)
        return last.reshape(u.shape[0], self.d_model, 2, self.n).transpose(1, 2).contiguous()

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the recurrence, in time linear in N."""
        system = self.system(u.dtype)
        new = system.advance(state.transpose(0, 1), u)
        return system.read(new), new.transpose(0, 1)
