"""The causal depthwise convolution of Mamba's block, with its activation, and its single decoding step."""

from __future__ import annotations

from typing import Literal, cast, overload

import torch
from torch import Tensor

from salience.core.backend import eager, pick, transformed
from salience.core.gradients import refuse_gradients
from salience.ops.causal_conv1d import operators, reference
from salience.ops.causal_conv1d.checks import ConvInputs, check, check_step
from salience.ops.fused_gradients import kernels


@overload
def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = ..., *, activation: str | None = ...,
                  initial_state: Tensor | None = ..., mask: Tensor | None = ..., seq_idx: Tensor | None = ...,
                  reverse: bool = ..., return_state: Literal[False] = ...,
                  backend: str = ...) -> Tensor: ...  # fmt: skip
@overload
def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = ..., *, activation: str | None = ...,
                  initial_state: Tensor | None = ..., mask: Tensor | None = ..., seq_idx: Tensor | None = ...,
                  reverse: bool = ..., return_state: Literal[True],
                  backend: str = ...) -> tuple[Tensor, Tensor]: ...  # fmt: skip
def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None,
                  initial_state: Tensor | None = None, mask: Tensor | None = None, seq_idx: Tensor | None = None,
                  reverse: bool = False, return_state: bool = False,
                  backend: str = "auto") -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Causal depthwise convolution: y_t = silu(bias + sum_k weight[:, k] x_{t - W + 1 + k}).

    Args:    x: (B, L, D), float32, float64, bfloat16 or float16, any strides
             weight: (D, W), W from 2 to 8, the last column multiplies x_t   bias: (D,)   activation: None or "silu"
             initial_state: (B, W - 1, D), the inputs before the first, oldest first; None: zeros. Read in x.dtype
             mask: (B, L) bool, True for valid steps. A masked step is absent: its y is 0, no window holds it, and no
             gradient flows into or out of it
             seq_idx: (B, L) integer. Where it changes from one valid step to the next a new sequence begins: inputs of
             another sequence count as zeros. initial_state belongs to the first sequence
             reverse: the mirror image, from the last step to the first (no step sees an earlier one)
             backend: "auto", "reference", "cpu" or "triton", see `salience.explain`
    Returns: y (B, L, D) in x.dtype; with return_state also the state (B, W - 1, D) in x.dtype: the last W - 1 valid
             inputs of the last sequence in the direction of the scan, oldest first, zeros before its beginning.
             Sums are in float32 (float64 for float64). Differentiable in x, weight, bias and initial_state, through y
             and through the state
    Raises:  ValueError for shapes, dtypes or devices that disagree; RuntimeError when the named backend cannot run
    Source:  the convolution of Mamba's block (Gu and Dao, arXiv 2312.00752, figure 3). Deviation: mask, seq_idx and
             reverse are additions
    """
    tensors = (x, weight, bias, initial_state, mask, seq_idx)
    given = ConvInputs(*tensors, activation == "silu", reverse)
    check(given, activation)
    name = pick("causal_conv1d", (x,), backend)
    if name == "reference" or transformed():
        y, state = reference.forward(given)
    elif eager(*tensors):
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
            y, state = operators.direct.apply(*given, name)  # type: ignore[no-untyped-call]
        else:
            y, state = kernels("causal_conv1d", name).forward(given)
    else:
        y, state = operators.causal_conv1d_fwd(*given, name)
    return (y, state) if return_state else y


def causal_conv1d_step(state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, *,
                       activation: str | None = None, backend: str = "auto") -> Tensor:  # fmt: skip
    """One more step of `causal_conv1d`. It updates `state` in place and has no gradients.

    Args:    state: (B, W - 1, D), the inputs before, oldest first, updated in place   x: (B, D)
             weight, bias, activation, backend: as in `causal_conv1d`
    Returns: y (B, D) in x.dtype
    Raises:  as `causal_conv1d`
    """
    check_step(state, x, weight, bias, activation)
    name = pick("causal_conv1d_step", (x,), backend)
    silu = activation == "silu"
    if name == "reference" or transformed():
        refuse_gradients("causal_conv1d_step")
        return reference.step(state, x, weight, bias, silu)
    if eager(state, x, weight, bias):
        return cast("Tensor", kernels("causal_conv1d", name).step(state, x, weight, bias, silu))
    with torch.no_grad():
        return cast("Tensor", operators.causal_conv1d_step(state, x, weight, bias, silu, name))
