"""What the layers around the selective scan share: how its parameters start, and what the input selects."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from salience.ssm.layers.projections import project, project_apart


def resolve_rank(dt_rank: int | str, d_model: int) -> int:
    """The width of dt's low-rank form: d_model / 16 rounded up for "auto"."""
    if dt_rank == "auto":
        return math.ceil(d_model / 16)
    return whole_number("dt_rank", dt_rank, also=' or "auto"')


def whole_number(name: str, value: object, *, least: int = 1, also: str = "") -> int:
    """`value`, if it is a whole number of at least `least`; a ValueError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}{also}, not {value!r}.")
    return value


def initial_decay(d_inner: int, d_state: int) -> nn.Parameter:
    """(E, N): A = -exp(A_log) = -1 .. -N in every channel (S4D's real form)."""
    n = torch.arange(1, d_state + 1, dtype=torch.float32)
    return nn.Parameter(n.log().repeat(d_inner, 1))


def decay(A_log: Tensor) -> Tensor:
    """A (E, N), negative, in float32 at least: exp of a bfloat16 is off by a percent."""
    return -torch.exp(A_log if A_log.dtype == torch.float64 else A_log.float())


@torch.no_grad()
def init_dt_(dt_proj: nn.Linear, *, dt_min: float, dt_max: float, dt_floor: float) -> None:
    """Start dt_proj so that softplus(its bias) is log-uniform between dt_min and dt_max, dt_floor at least."""
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min and dt_max must be 0 < dt_min <= dt_max, not {dt_min!r} and {dt_max!r}.")
    bound = dt_proj.in_features**-0.5
    dt_proj.weight.uniform_(-bound, bound)
    spread = torch.rand_like(dt_proj.bias)  # in [0, 1)
    dt = torch.exp(math.log(dt_min) + spread * (math.log(dt_max) - math.log(dt_min))).clamp_min(dt_floor)
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus backwards


def select(u: Tensor, x_proj: nn.Module, dt_proj: nn.Module, d_state: int,
           backend: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """u (..., E) -> dt (..., E) before its softplus, B and C (..., N), and dt's bias (E,), None where dt has it."""
    selected = project(x_proj, u, backend)
    low, B, C = torch.split(selected, [selected.shape[-1] - 2 * d_state, d_state, d_state], dim=-1)
    dt, bias = project_apart(dt_proj, low, backend)  # the bias is added once, by the scan
    return dt, B, C, bias


def check_input(x: Tensor, d_model: int, mask: Tensor | None = None) -> None:
    """Raise a ValueError unless x is (B, L, d_model) with at least one step, and mask, if given, bool (B, L)."""
    if x.ndim != 3 or x.shape[-1] != d_model or x.shape[1] == 0:
        raise ValueError(f"x must be (B, L, {d_model}) with L of at least 1, not {tuple(x.shape)}.")
    check_mask(mask, x.shape[:2])


def check_mask(mask: Tensor | None, shape: torch.Size) -> None:
    """Raise a ValueError for a mask that is not bool of this shape (B, L)."""
    if mask is not None and (mask.shape != shape or mask.dtype != torch.bool):
        raise ValueError(f"mask must be bool {tuple(shape)}, not {mask.dtype} {tuple(mask.shape)}.")
