"""Bidirectional Mamba, for sequences that are complete from the start."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from salience.ops.selective_scan import selective_scan
from salience.ssm.layers.convolutions import convolve
from salience.ssm.layers.hydra import mix_both_ways
from salience.ssm.layers.s6 import check_input, decay, init_dt_, initial_decay, resolve_rank, select, whole_number

# form -> default width of the convolution, widths allowed, and these in words
WIDTHS = {
    "vim": (4, range(2, 9), "a whole number from 2 to 8"),
    "hydra": (7, range(3, 16, 2), "an odd number from 3 to 15"),
}


class BiMamba(nn.Module):
    """Bidirectional Mamba layer, in one of two forms.

    vim: the outer projections are shared; convolution, selection and scan exist once for each direction, and the two
    gated results are averaged. Parameters of the backward direction end in "_b". Source: Zhu et al., arXiv:2401.09417,
    algorithm 1, and its second published version, which shares the projections and halves the sum. Deviation: nothing
    is flipped, the operators run backwards. Under padding, each row's own valid steps are reversed.
    hydra: one centred convolution and one quasiseparable matrix, see `salience.ssm.layers.hydra`.

    Args:    d_model, d_state, expand, dt_rank, dt_min, dt_max, dt_floor, bias, conv_bias, backend: as `Mamba`'s
             form: "vim" or "hydra"   d_conv: 2 to 8 (vim, 4 by default), or odd, 3 to 15 (hydra, 7 by default)
    Raises:  ValueError for an unknown form, or as `Mamba`
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_proj.bias", "A_b_log", "D_b", "dt_proj_b.bias")

    def __init__(
        self,
        d_model: int,
        *,
        form: str = "vim",
        d_state: int = 16,
        d_conv: int | None = None,
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
        if form not in WIDTHS:
            raise ValueError(f'form must be "vim" or "hydra", not {form!r}.')
        self.form, self.backend = form, backend
        self.d_model, self.d_state = whole_number("d_model", d_model), whole_number("d_state", d_state)
        self.d_inner = E = whole_number("expand", expand) * d_model
        default, allowed, words = WIDTHS[form]
        self.d_conv = width = default if d_conv is None else d_conv
        if width not in allowed:
            raise ValueError(f"d_conv must be {words}, not {d_conv!r}.")
        rank = resolve_rank(dt_rank, d_model)
        selected = rank + 2 * d_state
        self.in_proj = nn.Linear(d_model, 2 * E, bias=bias)
        self.conv1d = nn.Conv1d(E, E, width, groups=E, bias=conv_bias)
        self.x_proj = nn.Linear(E, selected if form == "vim" else 2 * selected, bias=False)
        self.dt_proj = nn.Linear(rank, E)
        self.A_log, self.D = initial_decay(E, d_state), nn.Parameter(torch.ones(E))
        if form == "vim":
            self.conv1d_b = nn.Conv1d(E, E, width, groups=E, bias=conv_bias)
            self.x_proj_b, self.dt_proj_b = nn.Linear(E, selected, bias=False), nn.Linear(rank, E)
            self.A_b_log, self.D_b = initial_decay(E, d_state), nn.Parameter(torch.ones(E))
        else:
            self.fc_D = nn.Linear(E, E, bias=False)
        self.out_proj = nn.Linear(E, d_model, bias=bias)
        for dt_proj in (self.dt_proj, self.dt_proj_b) if form == "vim" else (self.dt_proj,):
            init_dt_(dt_proj, dt_min=dt_min, dt_max=dt_max, dt_floor=dt_floor)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, seq_idx: Tensor | None = None) -> Tensor:
        """x (B, L, d_model) -> y (B, L, d_model); every valid step sees every other one of its sequence.

        Args:    mask: (B, L) bool, True for valid steps   seq_idx: (B, L) integer, a new sequence where it changes
        Raises:  ValueError for shapes, dtypes or devices that disagree
        """
        check_input(x, self.d_model)
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, L, E) each, views
        options: dict[str, Any] = {"mask": mask, "seq_idx": seq_idx, "backend": self.backend}
        if self.form == "hydra":
            y = mix_both_ways(self, u, z, options)
        else:
            there = self._way(u, z, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, options)
            options["reverse"] = True
            back = self._way(u, z, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, options)
            y = (there + back) / 2
        out: Tensor = self.out_proj(y)
        return out

    def _way(self, x: Tensor, z: Tensor, conv: nn.Module, x_proj: nn.Module, dt_proj: nn.Module, A_log: Tensor,
             D: Tensor, options: dict[str, Any]) -> Tensor:  # fmt: skip
        """One direction of Vim: convolution, scan, gate; (B, L, E)."""
        u, _ = convolve(conv, x, self.d_conv, activation="silu", **options)
        dt, B, C, bias = select(u, x_proj, dt_proj, self.d_state, self.backend)
        y: Tensor = selective_scan(u, dt, decay(A_log), B, C, D, z=z, dt_bias=bias, dt_softplus=True, **options)
        return y
