"""The fused convolution as PyTorch operators: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward` and `backward`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import refuse_tangents
from salience.ops.causal_conv1d import reference
from salience.ops.causal_conv1d.conv_inputs import ConvInputs
from salience.ops.fused_gradients import FusedGradients, kernels


@torch.library.custom_op("salience::causal_conv1d_fwd", mutates_args=())
def causal_conv1d_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, mask: Tensor | None,
    seq_idx: Tensor | None, silu: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the state."""
    refuse_tangents()
    given = ConvInputs(x, weight, bias, initial_state, mask, seq_idx, silu, reverse)
    y, state = kernels("causal_conv1d", backend).forward(given)
    return y, state


@torch.library.custom_op("salience::causal_conv1d_bwd", mutates_args=())
def causal_conv1d_bwd(
    dy: Tensor, dstate: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None,
    mask: Tensor | None, seq_idx: Tensor | None, silu: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, weight, bias and initial_state; an operator cannot return None: empty for what is absent."""
    refuse_tangents()
    given = ConvInputs(x, weight, bias, initial_state, mask, seq_idx, silu, reverse)
    found = kernels("causal_conv1d", backend).backward(dy, dstate, given)
    dx, dweight, dbias, dinitial = (x.new_empty(0) if g is None else g for g in found)
    return dx, dweight, dbias, dinitial


@causal_conv1d_fwd.register_fake
def _fwd_fake(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2])


@causal_conv1d_bwd.register_fake
def _bwd_fake(
    dy: Tensor, dstate: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    inputs = (x, weight, bias, initial_state)
    return tuple(x.new_empty(0) if t is None else t.new_empty(t.shape) for t in inputs)


@torch.library.custom_op("salience::causal_conv1d_step", mutates_args=("state",))
def causal_conv1d_step(
    state: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, backend: str
) -> Tensor:  # fmt: skip
    """y; the state is updated in place."""
    refuse_tangents()
    y: Tensor = kernels("causal_conv1d", backend).step(state, x, weight, bias, silu)
    return y


@causal_conv1d_step.register_fake
def _step_fake(state: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


_gradients = FusedGradients(op="causal_conv1d", leaves=4, saved=0, pack=ConvInputs, reference=reference.forward)
_gradients.register(causal_conv1d_fwd, causal_conv1d_bwd)
direct = _gradients.direct(causal_conv1d_bwd)
