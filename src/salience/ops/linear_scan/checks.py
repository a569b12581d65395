"""Argument checks of the linear scan. Each error is one sentence."""

from __future__ import annotations

from torch import Tensor

from salience.ops.sequence_checks import check_device, check_sequences


def check(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None) -> None:
    """Raise ValueError if shapes, kinds or devices disagree; see `linear_scan`."""
    if b.dim() != 3 or b.shape[1] == 0:
        raise ValueError(f"b must be (B, L, D) with L at least 1, not {tuple(b.shape)}.")
    _shapes(a, b, initial_state, (b.shape[2],))
    for name, value in (("a", a), ("b", b), ("initial_state", initial_state)):
        if value is not None and not (value.is_floating_point() or value.is_complex()):
            raise ValueError(f"{name} must be floating point or complex, not {value.dtype}.")
    _steps(a, b, initial_state, mask, seq_idx)


def check_planes(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None,
                 seq_idx: Tensor | None) -> None:  # fmt: skip
    """Raise ValueError if shapes, kinds or devices disagree; see `linear_scan_planes`."""
    if b.dim() != 4 or b.shape[1] == 0 or b.shape[2] not in (1, 2):
        raise ValueError(f"b must be (B, L, planes, D) with L at least 1 and 1 or 2 planes, not {tuple(b.shape)}.")
    _shapes(a, b, initial_state, tuple(b.shape[2:]))
    for name, value in (("a", a), ("b", b), ("initial_state", initial_state)):
        if value is not None and not value.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {value.dtype}.")
    _steps(a, b, initial_state, mask, seq_idx)


def _shapes(a: Tensor, b: Tensor, initial_state: Tensor | None, step: tuple[int, ...]) -> None:
    if tuple(a.shape) != step and a.shape != b.shape:
        raise ValueError(f"a must be {step} or {tuple(b.shape)} as b, not {tuple(a.shape)}.")
    if initial_state is not None and initial_state.shape != (b.shape[0], *step):
        raise ValueError(f"initial_state must be {(b.shape[0], *step)}, not {tuple(initial_state.shape)}.")


def _steps(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None) -> None:
    check_sequences(mask, seq_idx, b, "b")
    for name, value in (("a", a), ("initial_state", initial_state)):
        if value is not None:
            check_device(name, value, b, "b")
