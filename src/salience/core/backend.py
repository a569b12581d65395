"""The only reader of the device: what "auto" means, and a sentence for a device that is not there."""

from __future__ import annotations

import torch


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device to run on.

    Args:    name: "auto" (CUDA where there is one, else Apple's MPS, else the CPU), or as torch: "cpu", "cuda:1"
    Raises:  ValueError when torch does not know the name or the machine has no such device
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda', 'cuda:<n>' or 'mps', not {name!r}.") from None
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ValueError(f"device {str(name)!r} is not on this machine; 'auto' takes what there is.")
    return device
