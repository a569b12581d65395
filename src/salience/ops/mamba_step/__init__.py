"""One decoding step of a Mamba block between its two large projections, as one kernel on a CPU.

Separately, the convolution's step, x_proj, dt_proj and the scan's step would be five calls for 0.1 ms of work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from salience.core.backend import eager, pick

MOST_ROWS = 8  # each row reads x_proj and dt_proj again; above this, products of all rows at once are faster


def mamba_step(conv_state: Tensor, state: Tensor, x: Tensor, z: Tensor, *, conv_weight: Tensor,
               conv_bias: Tensor | None, x_weight: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_log: Tensor, D: Tensor,
               backend: str = "auto") -> Tensor | None:  # fmt: skip
    """One Mamba step: x = silu(conv(x)); [dt, B, C] = W_x x; y = silu(z) scan(x, softplus(W_dt dt + b), A, B, C, D).

    Both states are updated in place. No gradients. Intermediate values are float32 (float64), also for half precision.

    Args:    conv_state: (B, W - 1, E), oldest first   state: (B, E, N), float32 (float64 for float64)   x, z: (B, E)
             conv_weight: (E, W)   conv_bias, dt_bias, D: (E,)   x_weight: (R + 2N, E)   dt_weight: (E, R)
             A_log: (E, N), A = -exp(A_log)   backend: "auto" or "cpu"; any other runs no kernel
    Returns: y (B, E) in x.dtype; None, with nothing changed, if the kernel does not apply: the caller then runs the
             operators one after another
    """
    small = (dt_bias, A_log, D, conv_weight) if conv_bias is None else (dt_bias, A_log, D, conv_weight, conv_bias)
    large = (x, z, conv_state, x_weight, dt_weight)
    if backend not in ("auto", "cpu") or not _suits(large, small, state):
        return None
    if pick("mamba_step", large, backend) != "cpu":
        return None
    from salience.ops.mamba_step.cpu import call

    parameters: Any = (conv_weight, conv_bias, dt_bias, A_log, D)
    if any(each is not None and (each.dtype != A_log.dtype or each.stride(-1) != 1) for each in parameters):
        parameters = [None if each is None else each.to(state.dtype).contiguous() for each in parameters]
    conv_weight, conv_bias, dt_bias, A_log, D = parameters
    y = torch.empty(x.shape, dtype=x.dtype)
    call(conv_state, state, x, z, conv_weight, conv_bias, x_weight, dt_weight, dt_bias, A_log, D, y).run()
    return y


def _suits(large: tuple[Tensor, ...], small: tuple[Tensor, ...], state: Tensor) -> bool:
    """Whether all are plain CPU tensors, the large ones of one dtype and contiguous. Shapes are not checked."""
    x, z, _, x_weight, dt_weight = large
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    given = (*large, *small, state)
    return (
        eager()
        and 0 < x.shape[0] <= MOST_ROWS
        and all(type(each) in (Tensor, nn.Parameter) and each.device.type == "cpu" for each in given)
        and all(each.dtype == x.dtype for each in large)
        and state.dtype == compute
        and state.stride(2) == 1
        and x.stride(1) == z.stride(1) == 1
        and x_weight.is_contiguous()
        and dt_weight.is_contiguous()
        and not (torch.is_grad_enabled() and any(each.requires_grad for each in given))
    )
