"""The causal convolution as PyTorch operators: differentiable, and opaque to torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import refuse_tangents
from salience.ops.causal_conv1d import reference
from salience.ops.causal_conv1d.checks import ConvInputs
from salience.ops.fused_gradients import FusedOperator, kernels


def _forward_fake(given: ConvInputs, backend: str) -> tuple[Tensor, Tensor]:
    x = given.x
    return x.new_empty(x.shape), x.new_empty(x.shape[0], given.weight.shape[1] - 1, x.shape[2])


_operator = FusedOperator(op="causal_conv1d", leaves=4, saved=0, pack=ConvInputs, reference=reference.forward)
causal_conv1d_fwd, direct = _operator.register(_forward_fake)


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
