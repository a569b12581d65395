"""Arguments of one causal convolution, as checks, reference and kernels take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ConvInputs(NamedTuple):
    """Tensors and flags of `causal_conv1d`, with its shapes."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    initial_state: Tensor | None
    mask: Tensor | None
    seq_idx: Tensor | None
    silu: bool
    reverse: bool
