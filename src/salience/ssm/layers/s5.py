"""S5: one diagonal state space for all channels together, a linear scan over its states.

Letters: B batch, L length, D = d_model channels, P complex states (N/2, one of each conjugate pair).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.ops.linear_scan import linear_scan_planes
from salience.ssm.layers.hippo import normal_part
from salience.ssm.layers.powers import expm1, over, powers, times
from salience.ssm.layers.time_invariant import TimeInvariant, initial_log_dt


class S5(TimeInvariant):
    """x_t = exp(dt A) x_{t-1} + (exp(dt A) - 1) / A B u_t; y = GLU(W GELU(2 Re(C x) + D u)); A diagonal, dt per state.

    Source: Smith, Warrington and Linderman, arXiv:2208.04933: zero-order hold; A starts as the eigenvalues of
    HiPPO-LegS' normal part, in `blocks` blocks of N / blocks states, B and C as random matrices in the coordinates of
    its eigenvectors. A's real part is -exp(A_re_log). Deviations: C is real before the change of coordinates; the GLU
    block is S4's.

    Args:    d_model: width of inputs and outputs   d_state: N, of all channels together   blocks: of the start of A
             dt_min, dt_max: where dt starts, log-uniform   backend: of the scan, see `salience.explain`
    Raises:  ValueError when N / blocks is not an even number, or dt_min is above dt_max
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("log_dt", "A_re_log", "A_im", "B")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        blocks: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__(d_model, d_state, backend)
        if not isinstance(blocks, int) or blocks < 1 or d_state % (2 * blocks):
            raise ValueError(f"blocks must divide d_state = {d_state} into even numbers of states, not {blocks!r}.")
        self.P = d_state // 2
        self.state_shape = 2, self.P
        poles, V = normal_part(d_state // blocks)
        poles, V = poles.repeat(blocks), torch.kron(torch.eye(blocks), V.contiguous())  # (P,), (N, P)
        self.log_dt = initial_log_dt((self.P,), dt_min, dt_max)
        self.A_re_log = nn.Parameter(torch.log(-poles.real).float())
        self.A_im = nn.Parameter(poles.imag.float())
        B = V.mH @ (torch.randn(d_state, d_model).to(V.dtype) * d_model**-0.5)
        C = (torch.randn(d_model, d_state).to(V.dtype) * d_state**-0.5) @ V
        self.B = nn.Parameter(torch.stack([B.real, B.imag]).float())  # (2, P, D)
        self.C = nn.Parameter(torch.stack([C.real, C.imag]).float())  # (2, D, P)

    def system(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Abar (2, P), Bbar (2P, D) and C (D, 2P), real rows and columns before imaginary ones."""
        A = torch.stack([-torch.exp(self.A_re_log.to(dtype)), self.A_im.to(dtype)])
        log_a = A * torch.exp(self.log_dt.to(dtype))
        B = times(over(expm1(log_a), A)[..., None], self.B.to(dtype))
        C = 2 * torch.cat([self.C[0], -self.C[1]], dim=-1).to(dtype)
        return powers(log_a, log_a.new_ones(1))[..., 0], B.flatten(0, 1), C

    def scan(self, u: Tensor, mask: Tensor | None, seq_idx: Tensor | None, state: Tensor | None, return_state: bool,
             reverse: bool) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """A product of matrices, the scan, a product of matrices."""
        a, B, C = self.system(u.dtype)
        b = F.linear(u, B).reshape(*u.shape[:2], 2, self.P)
        x, last = linear_scan_planes(
            a, b, initial_state=state, mask=mask, seq_idx=seq_idx, reverse=reverse, backend=self.backend
        )  # fmt: skip
        return F.linear(x.flatten(2), C), last

    def advance(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the recurrence."""
        a, B, C = self.system(u.dtype)
        new = times(a[:, None], state.transpose(0, 1)).transpose(0, 1) + F.linear(u, B).reshape(-1, 2, self.P)
        return F.linear(new.flatten(1), C), new
