"""Mamba's layer: a gated block around a short convolution and the selective scan.

Letters: B batch, L length, E = expand * d_model channels, N states a channel, R rank of dt, W width of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from salience.core.gradients import no_gradients
from salience.ops.mamba_step import mamba_step
from salience.ops.selective_scan import selective_scan, selective_scan_step
from salience.ssm.layers.convolutions import convolve, convolve_step
from salience.ssm.layers.layer_state import LayerState
from salience.ssm.layers.projections import blank, is_plain, present, project
from salience.ssm.layers.s6 import check_input, decay, init_dt_, initial_decay, resolve_rank, select, whole_number


@dataclass(eq=False)
class MambaState(LayerState):
    """State of a Mamba layer.

    conv: (B, W - 1, E), the convolution's last inputs, oldest first   ssm: (B, E, N), the scan's state, float32
    """

    conv: Tensor
    ssm: Tensor


class Mamba(nn.Module):
    """[x, z] = W_in u; x = silu(conv(x)); [dt, B, C] = W_x x; y = silu(z) scan(x, softplus(W_dt dt + b), A, B, C, D).

    Source: Gu and Dao, arXiv:2312.00752, section 3.4; parameters are named and started as in the published models.
    A (E, N) is -exp(A_log). `salience.parameter_groups` keeps A_log, D and dt's bias apart: own rate, no decay.

    Args:    d_model: width of inputs and outputs   d_state: N   d_conv: W, 2 to 8   expand: E / d_model
             dt_rank: R, "auto" for d_model / 16   dt_min, dt_max, dt_floor: where dt starts
             bias: in both projections   conv_bias: in the convolution   backend: see `salience.explain`
    Raises:  ValueError when a size is not a whole number, or dt_min is above dt_max
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_proj.bias")

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        bias: bool = False,
        conv_bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.d_model, self.d_state = whole_number("d_model", d_model), whole_number("d_state", d_state)
        self.d_conv, self.d_inner = d_conv, whole_number("expand", expand) * d_model
        if d_conv not in range(2, 9):
            raise ValueError(f"d_conv must be a whole number from 2 to 8, not {d_conv!r}.")
        self.backend = backend
        rank = resolve_rank(dt_rank, d_model)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, bias=conv_bias)
        self.x_proj = nn.Linear(self.d_inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, self.d_inner)
        self.A_log = initial_decay(self.d_inner, d_state)
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        init_dt_(self.dt_proj, dt_min=dt_min, dt_max=dt_max, dt_floor=dt_floor)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        seq_idx: Tensor | None = None,
        state: MambaState | None = None,
        return_state: bool = False,
        reverse: bool = False,
    ) -> Tensor | tuple[Tensor, MambaState]:
        """Process a sequence, or the next chunk of one.

        Args:    x: (B, L, d_model)   mask: (B, L) bool, True for valid steps; a masked one is absent, wherever it is
                 seq_idx: (B, L) integer, a new sequence beginning where it changes
                 state: of the chunk before, left as it is   reverse: from the last step to the first
        Returns: y (B, L, d_model); with return_state also the state after x, differentiable
        Raises:  ValueError for shapes, dtypes or devices that disagree
        """
        check_input(x, self.d_model)
        xz = project(self.in_proj, x, self.backend)
        u, z = xz.chunk(2, dim=-1)  # (B, L, E) each, views
        window, h = (None, None) if state is None else state
        u, window = convolve(
            self.conv1d, u, self.d_conv, activation="silu", initial_state=window, mask=mask, seq_idx=seq_idx,
            reverse=reverse, backend=self.backend,
        )  # fmt: skip
        dt, B, C, bias = select(u, self.x_proj, self.dt_proj, self.d_state, self.backend)
        y, h = selective_scan(
            u, dt, decay(self.A_log), B, C, self.D, z=z, dt_bias=bias, dt_softplus=True, initial_state=h,
            mask=mask, seq_idx=seq_idx, reverse=reverse, return_state=True, backend=self.backend,
        )  # fmt: skip
        out = project(self.out_proj, y, self.backend)
        return (out, MambaState(window, h)) if return_state else out

    @no_gradients
    def step(self, x: Tensor, state: MambaState) -> Tensor:
        """One more step: x (B, d_model) -> y (B, d_model); `state` moves on in place. No gradients."""
        u, z = project(self.in_proj, x, self.backend).chunk(2, dim=-1)  # (B, E)
        with present(self):
            y = self._fused_step(u, z, state)
            if y is None:
                y = self._plain_step(u, z, state)
        return project(self.out_proj, y, self.backend)

    def _fused_step(self, u: Tensor, z: Tensor, state: MambaState) -> Tensor | None:
        """All between the outer projections as one kernel, where there is one and nothing is wrapped."""
        if not (is_plain(self.x_proj) and is_plain(self.dt_proj) and is_plain(self.conv1d, nn.Conv1d)):
            return None
        return mamba_step(
            state.conv, state.ssm, u, z, conv_weight=self.conv1d.weight.squeeze(1), conv_bias=self.conv1d.bias,
            x_weight=self.x_proj.weight, dt_weight=self.dt_proj.weight, dt_bias=self.dt_proj.bias, A_log=self.A_log,
            D=self.D, backend=self.backend,
        )  # fmt: skip

    def _plain_step(self, u: Tensor, z: Tensor, state: MambaState) -> Tensor:
        """The same, one operator after another."""
        u = convolve_step(self.conv1d, state.conv, u, self.d_conv, activation="silu", backend=self.backend)
        dt, B, C, bias = select(u, self.x_proj, self.dt_proj, self.d_state, self.backend)
        return selective_scan_step(
            state.ssm, u, dt, decay(self.A_log), B, C, self.D, z=z, dt_bias=bias, dt_softplus=True,
            backend=self.backend,
        )  # fmt: skip

    def init_state(self, batch: int, *, dtype: torch.dtype | None = None) -> MambaState:
        """The state before the first step, zeros: the window in `dtype`, the weights' unless told."""
        weight = blank(self.in_proj, self)
        dtype = weight.dtype if dtype is None else dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return MambaState(
            weight.new_zeros(batch, self.d_conv - 1, self.d_inner, dtype=dtype),
            weight.new_zeros(batch, self.d_inner, self.d_state, dtype=wide),
        )
