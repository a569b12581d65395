"""Public functions `linear_scan` and `linear_scan_planes`, and the choice of the backend for a call."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from salience.core.backend import eager, pick, transformed
from salience.ops.fused_gradients import kernels
from salience.ops.linear_scan.checks import check, check_planes
from salience.ops.linear_scan.operators import linear_scan_fwd
from salience.ops.linear_scan.reference import joined, planes_of, reference_planes


@overload
def linear_scan(a: Tensor, b: Tensor, *, initial_state: Tensor | None = ..., mask: Tensor | None = ...,
                seq_idx: Tensor | None = ..., reverse: bool = ..., return_state: Literal[False] = ...,
                backend: str = ...) -> Tensor: ...  # fmt: skip
@overload
def linear_scan(a: Tensor, b: Tensor, *, initial_state: Tensor | None = ..., mask: Tensor | None = ...,
                seq_idx: Tensor | None = ..., reverse: bool = ..., return_state: Literal[True],
                backend: str = ...) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def linear_scan(a: Tensor, b: Tensor, *, initial_state: Tensor | None = None, mask: Tensor | None = None,
                seq_idx: Tensor | None = None, reverse: bool = False, return_state: bool = False,
                backend: str = "auto") -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Linear recurrence x_t = a_t x_{t-1} + b_t, for each channel.

    Args:    a: (D,), the same at every step, or (B, L, D)   b: (B, L, D). Real or complex, any float, any strides;
             mixed kinds become the wider one
             initial_state: (B, D); None: zeros
             mask: (B, L) bool, True for valid steps. A masked step is absent: the state stays as it is, its x is 0, and
             no gradient flows into or out of it
             seq_idx: (B, L) integer. Where it changes from one valid step to the next the state begins again at 0;
             initial_state belongs to the first sequence
             reverse: from the last step to the first; x keeps its place, the state is the one after the first step
             backend: "auto", "reference", "cpu" or "triton", see `salience.explain`
    Returns: x (B, L, D) in the wider dtype of a and b; with return_state also the last state (B, D), in single
             precision at least. Differentiable in a, b and initial_state, through x and through the state
    Raises:  ValueError for shapes, dtypes or devices that disagree and for L = 0; RuntimeError when the named
             backend cannot run
    Source:  the recurrence behind S5 (Smith, Warrington and Linderman, arXiv 2208.04933, section 3)
    """
    check(a, b, initial_state, mask, seq_idx)
    kind = torch.promote_types(a.dtype, b.dtype)
    if initial_state is not None and initial_state.is_complex():
        kind = torch.promote_types(kind, torch.complex64)
    planes = 2 if kind.is_complex else 1
    x, state = _scan(planes_of(a, planes), planes_of(b, planes), None if initial_state is None else
                     planes_of(initial_state, planes), mask, seq_idx, reverse, backend)  # fmt: skip
    y = joined(x).to(kind)
    return (y, joined(state)) if return_state else y


@overload
def linear_scan_planes(a: Tensor, b: Tensor, *, initial_state: Tensor | None = ..., mask: Tensor | None = ...,
                       seq_idx: Tensor | None = ..., reverse: bool = ..., return_state: Literal[False] = ...,
                       backend: str = ...) -> Tensor: ...  # fmt: skip
@overload
def linear_scan_planes(a: Tensor, b: Tensor, *, initial_state: Tensor | None = ..., mask: Tensor | None = ...,
                       seq_idx: Tensor | None = ..., reverse: bool = ..., return_state: Literal[True],
                       backend: str = ...) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def linear_scan_planes(a: Tensor, b: Tensor, *, initial_state: Tensor | None = None, mask: Tensor | None = None,
                       seq_idx: Tensor | None = None, reverse: bool = False, return_state: bool = False,
                       backend: str = "auto") -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`linear_scan` of complex numbers in two planes, real before imaginary, without a copy.

    A matrix product that makes b or reads x has the two planes next to each other.

    Args:    a: (planes, D) or (B, L, planes, D)   b: (B, L, planes, D), planes 1 (real) or 2
             initial_state: (B, planes, D)   others: as `linear_scan`
    Returns: x (B, L, planes, D) in the wider dtype of a and b; with return_state also the last state (B, planes, D),
             float32 at least
    Raises:  as `linear_scan`
    """
    check_planes(a, b, initial_state, mask, seq_idx)
    x, state = _scan(a, b, initial_state, mask, seq_idx, reverse, backend)
    y = x.to(torch.promote_types(a.dtype, b.dtype))
    return (y, state) if return_state else y


def _scan(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
          reverse: bool, backend: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The scan on planes, computed in float32 or float64."""
    name = pick("linear_scan", (b, a), backend)
    tensors = [x for x in (a, b, initial_state) if x is not None]
    wide = torch.float64 if torch.float64 in [x.dtype for x in tensors] else torch.float32
    a, b, initial_state = a.to(wide), b.to(wide), None if initial_state is None else initial_state.to(wide)
    if name == "reference" or transformed():
        return reference_planes(a, b, initial_state, mask, seq_idx, reverse)
    if eager(*tensors, mask, seq_idx) and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        found: tuple[Tensor, Tensor] = kernels("linear_scan", name).forward(a, b, initial_state, mask, seq_idx, reverse)
        return found  # an operator costs 50 us
    x, state = linear_scan_fwd(a, b, initial_state, mask, seq_idx, reverse, name)
    return x, state
