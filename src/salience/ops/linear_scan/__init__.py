"""The diagonal linear recurrence x_t = a_t x_{t-1} + b_t, real or complex."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from salience.core.backend import eager, pick, transformed
from salience.ops.fused_gradients import kernels
from salience.ops.linear_scan import reference
from salience.ops.linear_scan.operators import linear_scan_fwd
from salience.ops.linear_scan.reference import joined, planes_of
from salience.ops.sequence_checks import check_device, check_sequences


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
    _check(a, b, initial_state, mask, seq_idx, planes=False)
    kind = torch.promote_types(a.dtype, b.dtype)
    if initial_state is not None and initial_state.is_complex():
        kind = torch.promote_types(kind, torch.complex64)
    planes = 2 if kind.is_complex else 1
    x, state = _scan(planes_of(a, planes), planes_of(b, planes), None if initial_state is None else
                     planes_of(initial_state, planes), mask, seq_idx, reverse, backend)  # fmt: skip
    y = joined(x).to(kind)
    return (y, joined(state)) if return_state else y


def linear_scan_planes(a: Tensor, b: Tensor, *, initial_state: Tensor | None = None, mask: Tensor | None = None,
                       seq_idx: Tensor | None = None, reverse: bool = False,
                       backend: str = "auto") -> tuple[Tensor, Tensor]:  # fmt: skip
    """`linear_scan` of complex numbers in two planes, real before imaginary, without a copy.

    A matrix product that makes b or reads x has the two planes next to each other.

    Args:    a: (planes, D) or (B, L, planes, D)   b: (B, L, planes, D), planes 1 (real) or 2
             initial_state: (B, planes, D)   others: as `linear_scan`
    Returns: x (B, L, planes, D) in the wider dtype of a and b, and the last state (B, planes, D), float32 at least
    Raises:  as `linear_scan`
    """
    _check(a, b, initial_state, mask, seq_idx, planes=True)
    x, state = _scan(a, b, initial_state, mask, seq_idx, reverse, backend)
    return x.to(torch.promote_types(a.dtype, b.dtype)), state


def _scan(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None,
          reverse: bool, backend: str) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The scan on planes, computed in float32 or float64."""
    name = pick("linear_scan", (b, a), backend)
    tensors = [x for x in (a, b, initial_state) if x is not None]
    wide = torch.float64 if torch.float64 in [x.dtype for x in tensors] else torch.float32
    a, b, initial_state = a.to(wide), b.to(wide), None if initial_state is None else initial_state.to(wide)
    if name == "reference" or transformed():
        return reference.forward(a, b, initial_state, mask, seq_idx, reverse)
    if eager(*tensors, mask, seq_idx) and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        found: tuple[Tensor, Tensor] = kernels("linear_scan", name).forward(a, b, initial_state, mask, seq_idx, reverse)
        return found  # an operator costs 50 us
    x, state = linear_scan_fwd(a, b, initial_state, mask, seq_idx, reverse, name)
    return x, state


def _check(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None, *,
           planes: bool) -> None:  # fmt: skip
    """Raise ValueError if shapes, kinds or devices disagree; see `linear_scan`, with planes `linear_scan_planes`."""
    if planes and (b.dim() != 4 or b.shape[1] == 0 or b.shape[2] not in (1, 2)):
        raise ValueError(f"b must be (B, L, planes, D) with L at least 1 and 1 or 2 planes, not {tuple(b.shape)}.")
    if not planes and (b.dim() != 3 or b.shape[1] == 0):
        raise ValueError(f"b must be (B, L, D) with L at least 1, not {tuple(b.shape)}.")
    step = tuple(b.shape[2:])
    if tuple(a.shape) != step and a.shape != b.shape:
        raise ValueError(f"a must be {step} or {tuple(b.shape)} as b, not {tuple(a.shape)}.")
    if initial_state is not None and initial_state.shape != (b.shape[0], *step):
        raise ValueError(f"initial_state must be {(b.shape[0], *step)}, not {tuple(initial_state.shape)}.")
    for name, value in (("a", a), ("b", b), ("initial_state", initial_state)):
        if value is not None and not (value.is_floating_point() or (value.is_complex() and not planes)):
            raise ValueError(f"{name} must be floating point{'' if planes else ' or complex'}, not {value.dtype}.")
        if value is not None:
            check_device(name, value, b, "b")
    check_sequences(mask, seq_idx, b, "b")
