"""Computation in the dtypes that the code names, also under the caller's torch.autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Context in which autocast keeps float32 products in float32; without autocast it does nothing."""
    if not under_autocast(device):
        return nullcontext()
    off: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return off


def under_autocast(device: torch.device) -> bool:
    """Whether the caller's autocast changes dtypes on this device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
