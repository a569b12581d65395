"""Arguments of one selective scan, as checks, reference and kernels take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
