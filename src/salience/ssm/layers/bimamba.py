"""Mamba in both directions, for sequences that are there as a whole."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from salience.ops.selective_scan import selective_scan
from salience.ssm.layers.convolutions import convolve
from salience.ssm.layers.s6 import at_least_one, check_input, decay, init_dt_, initial_decay, resolve_rank, select

FORMS = ("vim", "hydra")


class BiMamba(nn.Module):
    """Vision Mamba's layer: projections shared, everything between them once for each direction, the two averaged.

    xz is read from the last step to the first as a whole, z too, before the convolution; under padding each row's own
    valid steps are. `form="hydra"` gives a `Hydra` instead, which knows the other arguments too.

    Source: Zhu et al., arXiv:2401.09417, algorithm 1, and its second published version, which shares the projections
    and halves the sum; parameters are named as there. Deviation: nothing is flipped, the operators run backwards.

    Args:    d_model, d_state, d_conv, expand, dt_rank, dt_min, dt_max, dt_floor, bias, conv_bias, backend: as `Mamba`'s
             form: "vim" or "hydra"
    Raises:  ValueError for an unknown form, or as `Mamba`
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_proj.bias", "A_b_log", "D_b", "dt_proj_b.bias")

    def __new__(cls, *args: Any, form: str = "vim", **options: Any) -> BiMamba:
        if form not in FORMS:
            raise ValueError(f'form must be "vim" or "hydra", not {form!r}.')
        if form == "hydra" and cls is BiMamba:
            from salience.ssm.layers.hydra import Hydra

            return super().__new__(Hydra)
        return super().__new__(cls)

    def __init__(
        self,
        d_model: int,
        *,
        form: str = "vim",
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
        self.form, self.backend = form, backend
        self.d_model, self.d_state = at_least_one("d_model", d_model), at_least_one("d_state", d_state)
        self.d_inner, self.d_conv = at_least_one("expand", expand) * d_model, d_conv
        if d_conv not in range(2, 9):
            raise ValueError(f"d_conv must be a whole number from 2 to 8, not {d_conv!r}.")
        rank, E = resolve_rank(dt_rank, d_model), self.d_inner
        self.in_proj = nn.Linear(d_model, 2 * E, bias=bias)
        self.conv1d = nn.Conv1d(E, E, d_conv, groups=E, bias=conv_bias)
        self.x_proj, self.dt_proj = nn.Linear(E, rank + 2 * d_state, bias=False), nn.Linear(rank, E)
        self.A_log, self.D = initial_decay(E, d_state), nn.Parameter(torch.ones(E))
        self.conv1d_b = nn.Conv1d(E, E, d_conv, groups=E, bias=conv_bias)
        self.x_proj_b, self.dt_proj_b = nn.Linear(E, rank + 2 * d_state, bias=False), nn.Linear(rank, E)
        self.A_b_log, self.D_b = initial_decay(E, d_state), nn.Parameter(torch.ones(E))
        self.out_proj = nn.Linear(E, d_model, bias=bias)
        for dt_proj in (self.dt_proj, self.dt_proj_b):
            init_dt_(dt_proj, dt_min=dt_min, dt_max=dt_max, dt_floor=dt_floor)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, seq_idx: Tensor | None = None) -> Tensor:
        """x (B, L, d_model) -> y (B, L, d_model), every valid step seeing every other of its sequence.

        Args:    mask: (B, L) bool, True for valid steps   seq_idx: (B, L) integer, a new sequence where it changes
        Raises:  ValueError for shapes, dtypes or devices that disagree
        """
        check_input(x, self.d_model)
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, L, E) each, views
        options: dict[str, Any] = {"mask": mask, "seq_idx": seq_idx, "backend": self.backend}
        there = self._way(x, z, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, options)
        options["reverse"] = True
        back = self._way(x, z, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b, options)
        y: Tensor = self.out_proj((there + back) / 2)
        return y

    def _way(self, x: Tensor, z: Tensor, conv: nn.Module, x_proj: nn.Module, dt_proj: nn.Module, A_log: Tensor,
             D: Tensor, options: dict[str, Any]) -> Tensor:  # fmt: skip
        """One direction: convolution, scan, gate; (B, L, E)."""
        u, _ = convolve(conv, x, self.d_conv, activation="silu", **options)
        dt, B, C, bias = select(u, x_proj, dt_proj, self.d_state, self.backend)
        y: Tensor = selective_scan(
            u, dt, decay(A_log), B, C, D, z=z, dt_bias=bias, dt_softplus=True, **options
        )  # fmt: skip
        return y
