"""The selective scan as PyTorch operators: differentiable, and opaque to torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import refuse_tangents
from salience.ops.fused_gradients import FusedOperator, kernels
from salience.ops.selective_scan import reference
from salience.ops.selective_scan.checks import ScanInputs, check_steps, grouped, sequence_dtype


def _forward_fake(given: ScanInputs, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    u, states, compute = given.u, given.A.shape[1], sequence_dtype(given)
    shape = kernels("selective_scan", backend).saved_shape(*u.shape, grouped(given.B).shape[2], states)
    last = u.new_empty((u.shape[0], u.shape[2], states), dtype=compute)
    return u.new_empty(u.shape), last, u.new_empty(shape, dtype=compute)


_operator = FusedOperator(op="selective_scan", leaves=9, saved=1, pack=ScanInputs, reference=reference.forward)
selective_scan_fwd, direct = _operator.register(_forward_fake)


@torch.library.custom_op("salience::selective_scan_step", mutates_args=("state",))
def selective_scan_step(
    state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    dt_bias: Tensor | None, dt_softplus: bool, backend: str,
) -> Tensor:  # fmt: skip
    """y; the state is updated in place."""
    refuse_tangents()
    if not dt_softplus:
        check_steps(dt, dt_bias)
    y: Tensor = kernels("selective_scan", backend).step(state, u, dt, A, B, C, D, z, dt_bias, dt_softplus)
    return y


@selective_scan_step.register_fake
def _step_fake(state: Tensor, u: Tensor, *rest: Any) -> Tensor:
    return u.new_empty(u.shape)
