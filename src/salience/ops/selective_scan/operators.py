"""The fused scan as PyTorch operators: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward`, `backward` and `saved_shape`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import refuse_tangents
from salience.ops.fused_gradients import FusedGradients, kernels
from salience.ops.selective_scan import reference
from salience.ops.selective_scan.checks import check_steps, grouped
from salience.ops.selective_scan.scan_inputs import ScanInputs


@torch.library.custom_op("salience::selective_scan_fwd", mutates_args=())
def selective_scan_fwd(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, dt_bias: Tensor | None,
    initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None, dt_softplus: bool, reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state, and the checkpoints that the backward pass starts from."""
    refuse_tangents()
    given = ScanInputs(u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx, dt_softplus, reverse)
    y, state, saved = kernels("selective_scan", backend).forward(given, True)
    return y, state, saved


@torch.library.custom_op("salience::selective_scan_bwd", mutates_args=())
def selective_scan_bwd(
    dy: Tensor, dstate: Tensor | None, saved: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, dt_bias: Tensor | None, initial_state: Tensor | None, mask: Tensor | None,
    seq_idx: Tensor | None, dt_softplus: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of u .. initial_state; an operator cannot return None: empty for what is absent."""
    refuse_tangents()
    given = ScanInputs(u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx, dt_softplus, reverse)
    found = kernels("selective_scan", backend).backward(dy, dstate, saved, given)
    du, ddt, dA, dB, dC, dD, dz, dbias, dinitial = (u.new_empty(0) if g is None else g for g in found)
    return du, ddt, dA, dB, dC, dD, dz, dbias, dinitial


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


@selective_scan_fwd.register_fake
def _fwd_fake(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    compute = (
        torch.float64 if any(x.dtype == torch.float64 for x in (u, dt, B, C, z) if x is not None) else torch.float32
    )
    batch, length, channels = u.shape
    shape = kernels("selective_scan", rest[-1]).saved_shape(batch, length, channels, grouped(B).shape[2], A.shape[1])
    return (
        u.new_empty(u.shape),
        u.new_empty((batch, channels, A.shape[1]), dtype=compute),
        u.new_empty(shape, dtype=compute),
    )


@selective_scan_bwd.register_fake
def _bwd_fake(dy: Tensor, dstate: Tensor | None, saved: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(dy.new_empty(0) if t is None else t.new_empty(t.shape) for t in inputs[:9])


_gradients = FusedGradients(op="selective_scan", leaves=9, saved=1, pack=ScanInputs, reference=reference.forward)
_gradients.register(selective_scan_fwd, selective_scan_bwd)
direct = _gradients.direct(selective_scan_bwd)
