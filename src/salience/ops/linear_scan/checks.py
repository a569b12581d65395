"""What the linear scan accepts: every refusal is one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None) -> None:
    """ValueError where shapes, kinds or devices disagree; see `linear_scan`."""
    if b.dim() != 3 or b.shape[1] == 0:
        raise ValueError(f"b must be (B, L, D) with L at least 1, not {tuple(b.shape)}.")
    _shapes(a, b, initial_state, (b.shape[2],))
    for name, value in (("a", a), ("b", b), ("initial_state", initial_state)):
        if value is not None and not (value.is_floating_point() or value.is_complex()):
            raise ValueError(f"{name} must be floating point or complex, not {value.dtype}.")
    _steps(a, b, initial_state, mask, seq_idx)


def check_planes(a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None,
                 seq_idx: Tensor | None) -> None:  # fmt: skip
    """ValueError where shapes, kinds or devices disagree; see `linear_scan_planes`."""
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
    for name, value in (("mask", mask), ("seq_idx", seq_idx)):
        if value is None:
            continue
        if value.shape != b.shape[:2]:
            raise ValueError(f"{name} must be (B, L) = {tuple(b.shape[:2])}, not {tuple(value.shape)}.")
        if (value.dtype != torch.bool) if name == "mask" else (value.dtype not in INTEGERS):
            raise ValueError(f"{name} must be {'bool' if name == 'mask' else 'integer'}, not {value.dtype}.")
    for name, value in (("a", a), ("initial_state", initial_state), ("mask", mask), ("seq_idx", seq_idx)):
        if value is not None and value.device != b.device:
            raise ValueError(f"{name} must be on {b.device} as b is, not on {value.device}.")
