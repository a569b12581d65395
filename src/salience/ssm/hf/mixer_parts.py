"""What one kind of transformers mixer calls the parts of S6, and where its dt, B and C come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salience.ops.mamba_step import mamba_step
from salience.ssm.layers.projections import is_plain, project, project_apart

#: dt (B, L, E); B and C (B, L, N) or (B, L, heads, N); dt's bias (E,), None where dt includes it
Selected = tuple[Tensor, Tensor, Tensor, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A transformers mixer with S6 inside, as Mamba's own is built; a subclass says where another one differs.

    mixer: the class, with its module.
    norms: the attributes that normalise dt's low-rank form, B and C, where there are any.

    Projections are called, never read, so that what wraps them (LoRA, quantisation) takes part.
    """

    mixer: str
    norms: tuple[str, str, str] | None = None

    @property
    def name(self) -> str:
        return self.mixer.rpartition(".")[2]

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """in_proj's output (B, L, 2E) -> x, z, both (B, L, E)."""
        x, z = projected.chunk(2, dim=-1)
        return x, z

    def select(self, mixer: Any, x: Tensor, backend: str) -> Selected:
        """x after the convolution (B, L, E) -> dt before its bias and softplus, B and C."""
        sizes = [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size]
        low, B, C = torch.split(project(mixer.x_proj, x, backend), sizes, dim=-1)
        if self.norms is not None:
            of_dt, of_B, of_C = (getattr(mixer, name) for name in self.norms)
            low, B, C = of_dt(low), of_B(B), of_C(C)
        if hasattr(mixer.config, "_is_quantized"):
            return mixer.dt_proj(low), B, C, None
        dt, bias = project_apart(mixer.dt_proj, low, backend)  # (B, L, E)
        return dt, B, C, bias

    def step(self, mixer: Any, x: Tensor, z: Tensor, window: Tensor, state: Tensor, backend: str) -> Tensor | None:
        """One token, (B, E), between the outer projections as one kernel; None where that would not be the same."""
        plain = self.norms is None and is_plain(mixer.x_proj) and is_plain(mixer.dt_proj)
        plain = plain and is_plain(mixer.conv1d, nn.Conv1d)
        if not plain or hasattr(mixer.config, "_is_quantized") or mixer.activation not in ("silu", "swish"):
            return None
        return mamba_step(
            window, state, x, z, conv_weight=mixer.conv1d.weight.squeeze(1), conv_bias=mixer.conv1d.bias,
            x_weight=mixer.x_proj.weight, dt_weight=mixer.dt_proj.weight, dt_bias=mixer.dt_proj.bias,
            A_log=mixer.A_log, D=mixer.D, backend=backend,
        )  # fmt: skip

    def constants(self, mixer: Any) -> tuple[Tensor, Tensor]:
        """A (E, N), negative, and D (E,); a mixer with heads keeps them as (heads, E / heads, ...)."""
        A_log = mixer.A_log.flatten(0, -2)
        # in single precision at least, whatever the model's dtype: exp of a bfloat16 is off by a percent
        return -torch.exp(A_log if A_log.dtype == torch.float64 else A_log.float()), mixer.D.flatten()
