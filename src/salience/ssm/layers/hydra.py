"""Hydra's mixing matrix on S6: quasiseparable, a lower part, an upper part and a diagonal of its own."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.ops.causal_conv1d import causal_conv1d
from salience.ops.selective_scan import selective_scan
from salience.ssm.layers.bimamba import BiMamba
from salience.ssm.layers.convolutions import called_on_windows
from salience.ssm.layers.projections import is_plain, project_apart
from salience.ssm.layers.s6 import at_least_one, check_input, decay, init_dt_, initial_decay, resolve_rank


class Hydra(BiMamba):
    """y = shift(scan(x)) + the same from the other end + (D + fc_D x) x, then the gate silu(z).

    The shift by one step keeps each direction's matrix strictly below (above) the diagonal, which so is free. The
    convolution is centred; A, dt_proj and the projections are shared, dt's low-rank form, B and C are each direction's.

    Source: Hwang, Lahoti, Dao and Gu, arXiv:2407.09941, equation 8 and figure 4. Deviations: S6 with dt of low rank
    (Mamba-1's block) in place of SSD's heads; the gate as in Mamba, without a norm.

    Args:    as `BiMamba`; d_conv is odd, 3 to 15
    Raises:  ValueError as `BiMamba`
    """

    ssm_parameters: ClassVar[tuple[str, ...]] = ("A_log", "D", "dt_proj.bias")

    def __init__(
        self,
        d_model: int,
        *,
        form: str = "hydra",
        d_state: int = 16,
        d_conv: int = 7,
        expand: int = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        bias: bool = False,
        conv_bias: bool = True,
        backend: str = "auto",
    ) -> None:
        nn.Module.__init__(self)
        self.form, self.backend = "hydra", backend
        self.d_model, self.d_state = at_least_one("d_model", d_model), at_least_one("d_state", d_state)
        self.d_inner = E = at_least_one("expand", expand) * d_model
        self.d_conv = d_conv
        if d_conv not in range(3, 16, 2):
            raise ValueError(f"d_conv must be an odd number from 3 to 15, not {d_conv!r}.")
        rank = resolve_rank(dt_rank, d_model)
        self.in_proj = nn.Linear(d_model, 2 * E, bias=bias)
        self.conv1d = nn.Conv1d(E, E, d_conv, groups=E, bias=conv_bias)
        self.x_proj = nn.Linear(E, 2 * (rank + 2 * d_state), bias=False)
        self.dt_proj = nn.Linear(rank, E)
        self.A_log = initial_decay(E, d_state)
        self.D, self.fc_D = nn.Parameter(torch.ones(E)), nn.Linear(E, E, bias=False)
        self.out_proj = nn.Linear(E, d_model, bias=bias)
        init_dt_(self.dt_proj, dt_min=dt_min, dt_max=dt_max, dt_floor=dt_floor)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, seq_idx: Tensor | None = None) -> Tensor:
        """x (B, L, d_model) -> y (B, L, d_model), as `BiMamba.forward`."""
        check_input(x, self.d_model)
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, L, E) each
        options: dict[str, Any] = {"mask": mask, "seq_idx": seq_idx, "backend": self.backend}
        u = F.silu(self._centred(u, options))
        y = u * (self.fc_D(u) + self.D)  # the diagonal
        A, N = decay(self.A_log), self.d_state
        selected = self.x_proj(u).chunk(2, dim=-1)  # (B, L, R + 2N) each direction
        for reverse, one in zip((False, True), selected, strict=True):
            low, B, C = one.split([one.shape[-1] - 2 * N, N, N], dim=-1)
            dt, bias = project_apart(self.dt_proj, low, self.backend)
            way = selective_scan(
                u, dt, A, B, C, dt_bias=bias, dt_softplus=True, reverse=reverse, **options
            )  # fmt: skip
            y = y + self._shifted(way, reverse, options)
        out: Tensor = self.out_proj(y * F.silu(z))
        return out

    def _centred(self, u: Tensor, options: dict[str, Any]) -> Tensor:
        """The convolution whose middle weight meets the step itself: what is before it, then what is after it."""
        half = self.d_conv // 2
        if not is_plain(self.conv1d, nn.Conv1d):
            taps = torch.eye(half + 1, dtype=u.dtype, device=u.device)[:, None].expand(-1, self.d_inner, -1)
            windows = [causal_conv1d(u, tap, **options) for tap in taps]
            windows += [causal_conv1d(u, tap, reverse=True, **options) for tap in taps[:half].flip(0)]
            y, mask = called_on_windows(self.conv1d, windows), options["mask"]
            return y if mask is None else y.masked_fill(~mask[..., None], 0)
        weight = self.conv1d.weight.squeeze(1)
        before: Tensor = causal_conv1d(u, weight[:, : half + 1], self.conv1d.bias, **options)
        after = torch.cat([weight[:, half + 1 :].flip(1), weight.new_zeros(self.d_inner, 1)], dim=1)
        behind: Tensor = causal_conv1d(u, after, reverse=True, **options)
        return before.add(behind)

    def _shifted(self, y: Tensor, reverse: bool, options: dict[str, Any]) -> Tensor:
        """Each step's neighbour in place of itself: a convolution, so that padding and packing count there too."""
        weight = F.pad(y.new_ones(self.d_inner, 1), (0, 1))
        shifted: Tensor = causal_conv1d(y, weight, reverse=reverse, **options)
        return shifted
