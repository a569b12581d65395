"""The linear scan as a PyTorch operator: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward` and `backward`. The backward pass
needs the states, and those are the output: nothing else is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salience.core.backend import refuse_tangents, transformed
from salience.ops.fused_gradients import kernels
from salience.ops.linear_scan import reference


@torch.library.custom_op("salience::linear_scan_fwd", mutates_args=())
def linear_scan_fwd(
    a: Tensor, b: Tensor, initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None, reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x (B, L, planes, D) and the last state (B, planes, D)."""
    refuse_tangents()
    x, state = kernels("linear_scan", backend).forward(a, b, initial_state, mask, seq_idx, reverse)
    return x, state


@torch.library.custom_op("salience::linear_scan_bwd", mutates_args=())
def linear_scan_bwd(
    dx: Tensor, dstate: Tensor | None, x: Tensor, a: Tensor, initial_state: Tensor | None, mask: Tensor | None,
    seq_idx: Tensor | None, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of a, b and the initial state (there even where that was None)."""
    refuse_tangents()
    da, db, dinitial = kernels("linear_scan", backend).backward(dx, dstate, x, a, initial_state, mask, seq_idx, reverse)
    return da, db, dinitial


@linear_scan_fwd.register_fake
def _fwd_fake(a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return b.new_empty(b.shape), b.new_empty((b.shape[0], *b.shape[2:]))


@linear_scan_bwd.register_fake
def _bwd_fake(dx: Tensor, dstate: Tensor | None, x: Tensor, a: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), x.new_empty(x.shape), x.new_empty((x.shape[0], *x.shape[2:]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, _, initial_state, mask, seq_idx, ctx.reverse, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], a, initial_state, mask, seq_idx)


def _differentiate(ctx: Any, dx: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
    x, a, initial_state, mask, seq_idx = ctx.saved_tensors
    found: tuple[Tensor | None, ...]
    if transformed() or torch.is_grad_enabled():  # a batch of gradients, say, or create_graph
        found = reference.gradients(dx, dstate, x, a, initial_state, mask, seq_idx, ctx.reverse)
    else:
        dx = torch.zeros_like(x) if dx is None else dx
        found = linear_scan_bwd(dx, dstate, x, a, initial_state, mask, seq_idx, ctx.reverse, ctx.backend)
    wanted = [g if needed else None for g, needed in zip(found, ctx.needs_input_grad[:3], strict=True)]
    return (*wanted, None, None, None, None)


linear_scan_fwd.register_autograd(_differentiate, setup_context=_keep)
