"""Mamba's selective scan and its single decoding step: public functions, and the choice of the backend for a call."""

from __future__ import annotations

from typing import Literal, cast, overload

import torch
from torch import Tensor

from salience.core.backend import eager, pick, transformed
from salience.core.gradients import no_gradients
from salience.ops.fused_gradients import kernels
from salience.ops.selective_scan import operators, reference
from salience.ops.selective_scan.checks import ScanInputs, check, check_sign, check_step, check_steps


@overload
def selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ..., *,
                   z: Tensor | None = ..., dt_bias: Tensor | None = ..., dt_softplus: bool = ...,
                   initial_state: Tensor | None = ..., mask: Tensor | None = ..., seq_idx: Tensor | None = ...,
                   reverse: bool = ..., return_state: Literal[False] = ...,
                   backend: str = ...) -> Tensor: ...  # fmt: skip
@overload
def selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ..., *,
                   z: Tensor | None = ..., dt_bias: Tensor | None = ..., dt_softplus: bool = ...,
                   initial_state: Tensor | None = ..., mask: Tensor | None = ..., seq_idx: Tensor | None = ...,
                   reverse: bool = ..., return_state: Literal[True],
                   backend: str = ...) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def selective_scan(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, *,
                   z: Tensor | None = None, dt_bias: Tensor | None = None, dt_softplus: bool = False,
                   initial_state: Tensor | None = None, mask: Tensor | None = None, seq_idx: Tensor | None = None,
                   reverse: bool = False, return_state: bool = False,
                   backend: str = "auto") -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Selective scan: h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t;  y_t = (C_t h_t + D u_t) silu(z_t), for each channel.

    Args:    u: (B, L, D), float32, float64, bfloat16 or float16, any strides   dt: (B, L, D), the step size
             A: (D, N), negative (-exp(A_log))
             B, C: (B, L, N), or (B, L, G, N) with G groups, channel d reading group d // (D / G)
             D: (D,), the skip   z: (B, L, D), the gate
             dt_bias: (D,), added to dt once   dt_softplus: dt becomes softplus(dt + dt_bias)
             initial_state: (B, D, N); None: zeros
             mask: (B, L) bool, True for valid steps. A masked step is absent: the state stays as it is, its y is 0, and
             no gradient flows into or out of it
             seq_idx: (B, L) integer. Where it changes from one valid step to the next the state begins again at 0;
             initial_state belongs to the first sequence
             reverse: from the last step to the first; y keeps its place, the state is the one after the first step
             backend: "auto", "reference", "cpu" or "triton", see `salience.explain`
    Returns: y (B, L, D) in u.dtype; with return_state also the last state (B, D, N) in float32 (float64 for float64).
             Differentiable in u, dt, A, B, C, D, z, dt_bias and initial_state, through y and through the state
    Raises:  ValueError for shapes, dtypes or devices that disagree, for L = 0, for a positive A and, without
             dt_softplus, for a negative dt (signs are checked on the CPU, by the reference outside torch.compile);
             RuntimeError when the named backend cannot run
    Source:  Gu and Dao, Mamba (arXiv 2312.00752), algorithm 2, discretised as the official kernel does: zero-order hold
             for A, Euler for B. Deviation: initial_state, mask, seq_idx and reverse are additions
    """
    tensors = (u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx)
    given = ScanInputs(*tensors, dt_softplus, reverse)
    check(given)
    name = pick("selective_scan", (u, A), backend)
    plain = name == "reference" or transformed()
    if plain or name != "cpu":  # the CPU kernel checks signs itself
        check_sign(A)
        if not dt_softplus:
            check_steps(dt, dt_bias, mask)
    if plain:
        y, state = reference.forward(given)
    elif not eager(*tensors):
        y, state, _ = operators.selective_scan_fwd(*given, name)
    elif torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        y, state = operators.direct.apply(*given, name)  # type: ignore[no-untyped-call]
    else:
        y, state, _ = kernels("selective_scan", name).forward(given, False)
    return (y, state) if return_state else y


@no_gradients
def selective_scan_step(state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
                        D: Tensor | None = None, *, z: Tensor | None = None, dt_bias: Tensor | None = None,
                        dt_softplus: bool = False, backend: str = "auto") -> Tensor:  # fmt: skip
    """One more step of `selective_scan`. It updates `state` in place and has no gradients.

    Args:    state: (B, D, N), float32 (float64 for float64), updated in place   u, dt, z: (B, D)
             B, C: (B, N) or (B, G, N)
             A, D, dt_bias, dt_softplus, backend: as in `selective_scan`
    Returns: y (B, D) in u.dtype
    Raises:  as `selective_scan`, but the sign of A is not checked
    """
    B, C = (x[:, None] if x.dim() == 2 else x for x in (B, C))
    check_step(state, u, dt, A, B, C, D, z, dt_bias)
    if not dt_softplus:
        check_steps(dt, dt_bias)
    name = pick("selective_scan_step", (u, A), backend)
    tensors = (state, u, dt, A, B, C, D, z, dt_bias)
    if name == "reference" or transformed():
        return reference.step(*tensors, dt_softplus)
    if eager(*tensors):
        return cast("Tensor", kernels("selective_scan", name).step(*tensors, dt_softplus))  # an operator costs 50 us
    return cast("Tensor", operators.selective_scan_step(*tensors, dt_softplus, name))
