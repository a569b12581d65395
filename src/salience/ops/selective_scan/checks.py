"""Arguments of the selective scan, and their checks. Each error is one sentence."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from salience.core.backend import PLAIN
from salience.ops import sequence_checks
from salience.ops.sequence_checks import check_sequences

# The reference accepts complex A, B and C, and so complex states.
check_tensor = partial(sequence_checks.check_tensor, name="u", may_be_complex=True)
check_kind = partial(sequence_checks.check_kind, name="u", may_be_complex=True)


class ScanInputs(NamedTuple):
    """Tensors and flags of `selective_scan`, with its shapes."""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_state: Tensor | None
    mask: Tensor | None
    seq_idx: Tensor | None
    dt_softplus: bool
    reverse: bool


def check(given: ScanInputs) -> None:
    """Raise ValueError if shapes, dtypes or devices disagree; see `selective_scan`.

    The signs of A and dt are not checked here: the CPU kernel reads both and checks them itself. Other backends need
    `check_sign` and `check_steps`.
    """
    u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx, _, _ = given
    if u.dim() != 3 or u.shape[1] == 0:
        raise ValueError(f"u must be (B, L, D) with L at least 1, not {tuple(u.shape)}.")
    check_weights(u, A, D, dt_bias)
    check_tensor("dt", dt, "(B, L, D) = {} as u", u.shape, u)
    check_tensor("z", z, "(B, L, D) = {} as u", u.shape, u)
    check_matrices(u, B, C, A.shape[1], "(B, L, N) or (B, L, G, N)")
    check_tensor("initial_state", initial_state, "(B, D, N) = {}", (u.shape[0], *A.shape), u)
    check_sequences(mask, seq_idx, u, "u")


def check_step(state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
               z: Tensor | None, dt_bias: Tensor | None) -> None:  # fmt: skip
    """Raise ValueError if shapes, dtypes or devices disagree; see `selective_scan_step`.

    The sign of A is not checked, because a decoding loop calls this for every layer and token.
    """
    if u.dim() != 2:
        raise ValueError(f"u must be (B, D), not {tuple(u.shape)}.")
    check_weights(u, A, D, dt_bias)
    check_tensor("dt", dt, "(B, D) = {} as u", u.shape, u)
    check_tensor("z", z, "(B, D) = {} as u", u.shape, u)
    check_matrices(u, B, C, A.shape[1], "(B, N) or (B, G, N)")
    check_tensor("state", state, "(B, D, N) = {}", (u.shape[0], *A.shape), u)


def check_weights(u: Tensor, A: Tensor, D: Tensor | None, dt_bias: Tensor | None) -> None:
    """The checks of u (..., D) and the parameters."""
    channels = u.shape[-1]
    if not u.dtype.is_floating_point:
        raise ValueError(f"u must be floating point, not {u.dtype}.")
    if A.dim() != 2 or A.shape[0] != channels or A.shape[1] == 0:
        raise ValueError(f"A must be (D, N) with D = {channels} and N at least 1, not {tuple(A.shape)}.")
    check_kind("A", A, u)
    check_tensor("D", D, "(D,) = {}", (channels,), u)
    check_tensor("dt_bias", dt_bias, "(D,) = {}", (channels,), u)


def check_matrices(u: Tensor, B: Tensor, C: Tensor, states: int, form: str) -> None:
    """Check B and C beside u (..., D): (..., G, N) with one G that divides D, or (..., N) for one group."""
    *leading, channels = u.shape
    for name, value in (("B", B), ("C", C)):
        fits = value.dim() - len(leading) in (1, 2) and list(value.shape[: len(leading)]) == leading
        if not fits or value.shape[-1] != states:
            wanted = ", ".join(map(str, (*leading, states)))
            raise ValueError(f"{name} must be {form} = ({wanted}), groups before the last, not {tuple(value.shape)}.")
        check_kind(name, value, u)
    groups, others = (x.shape[-2] if x.dim() == len(leading) + 2 else 1 for x in (B, C))
    if others != groups or groups == 0 or channels % groups:
        raise ValueError(
            f"B and C must have the same number of groups, a divisor of D = {channels}, not {groups} and {others}."
        )


def sequence_dtype(given: ScanInputs) -> torch.dtype:
    """The dtype of sums and states: float64 if a sequence is, else float32."""
    sequences = (given.u, given.dt, given.B, given.C, given.z)
    return torch.float64 if any(x is not None and x.dtype == torch.float64 for x in sequences) else torch.float32


def grouped(x: Tensor) -> Tensor:
    """B or C with its axis of groups: (B, L, N) -> (B, L, 1, N)."""
    return x.unsqueeze(2) if x.dim() == 3 else x


def check_sign(A: Tensor) -> None:
    """Raise ValueError if A is positive: states would grow without bound. Only on the CPU, outside compiling."""
    if A.is_complex() or (values := _values(A)) is None:
        return
    largest = float(values.max())
    if largest > 0:
        raise ValueError(f"A must not be positive (it is -exp(A_log)), but its largest entry is {largest:g}.")


def check_steps(dt: Tensor, dt_bias: Tensor | None, mask: Tensor | None = None) -> None:
    """Raise ValueError if a valid step is negative without softplus. Only on the CPU, outside compiling.

    States would grow, exp(dt A) would overflow, and gradients would become NaN.
    """
    if dt.device.type != "cpu" or torch.compiler.is_compiling():
        return
    step = dt.detach() if dt_bias is None else dt.detach() + dt_bias.detach()
    step = step if mask is None else step.masked_fill(~mask[..., None], 0)
    if (values := _values(step)) is None or not values.numel():
        return
    smallest = float(values.min())
    if smallest < 0:
        what = "dt" if dt_bias is None else "dt + dt_bias"
        raise ValueError(f"{what} must not be negative without dt_softplus, but its smallest entry is {smallest:g}.")


def _values(x: Tensor) -> Tensor | None:
    """Values inside torch.func's wrappers; None on other devices and for tensors without values."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x.detach() if type(x) in PLAIN else None
