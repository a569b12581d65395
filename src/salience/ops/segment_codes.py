"""Codes of a sequence's steps for the scans: absent, valid, or first of a new sequence. Kernels use them too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ABSENT, VALID, RESTART = 0, 1, 2


def step_codes(mask: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> Tensor | None:
    """(B, L) uint8, contiguous, in the order of the scan: ABSENT, VALID, or RESTART where the state becomes 0 before.

    A sequence begins at a valid step whose `seq_idx` differs from that of the valid step scanned before it; the first
    valid step of a row goes on from the initial state. None: all valid.

    Args:    mask: (B, L) bool, True for valid steps   seq_idx: (B, L) integer   reverse: the scan runs from L-1 to 0
    """
    if mask is None and seq_idx is None:
        return None
    if reverse:
        mask, seq_idx = (None if x is None else x.flip(1) for x in (mask, seq_idx))
    if seq_idx is None:
        assert mask is not None
        return torch.where(mask, VALID, ABSENT).to(torch.uint8).contiguous()
    valid = torch.ones_like(seq_idx, dtype=torch.bool) if mask is None else mask
    before = valid_before(valid)
    changed = (before >= 0) & (seq_idx.gather(1, before.clamp_min(0)) != seq_idx)
    return torch.where(valid, torch.where(changed, RESTART, VALID), ABSENT).to(torch.uint8).contiguous()


def valid_before(valid: Tensor) -> Tensor:
    """(B, L) int64: the last valid step before each, -1 for none."""
    places = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    latest = torch.where(valid, places, -1).cummax(1).values
    return F.pad(latest[:, :-1], (1, 0), value=-1)
