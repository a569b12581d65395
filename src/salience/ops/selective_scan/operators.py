"""The fused scan as PyTorch operators: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward`, `backward` and `saved_shape`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from salience.ops.selective_scan.checks import grouped

INPUTS = 11  # tensors among the arguments


@cache
def kernels(backend: str) -> Any:
    """The module of a fused backend: `forward`, `backward`, `step`, `saved_shape`."""
    return importlib.import_module(f"salience.ops.selective_scan.{backend}")


@torch.library.custom_op("salience::selective_scan_fwd", mutates_args=())
def selective_scan_fwd(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, dt_bias: Tensor | None,
    initial_state: Tensor | None, mask: Tensor | None, seq_idx: Tensor | None, dt_softplus: bool, reverse: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state, and the checkpoints that the backward pass starts from."""
    y, state, saved = kernels(backend).forward(
        u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx, dt_softplus, reverse, True
    )
    return y, state, saved


@torch.library.custom_op("salience::selective_scan_bwd", mutates_args=())
def selective_scan_bwd(
    dy: Tensor, dstate: Tensor | None, saved: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor,
    D: Tensor | None, z: Tensor | None, dt_bias: Tensor | None, initial_state: Tensor | None, mask: Tensor | None,
    seq_idx: Tensor | None, dt_softplus: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of u .. initial_state; an operator cannot return None: empty for what is absent."""
    found = kernels(backend).backward(
        dy, dstate, saved, u, dt, A, B, C, D, z, dt_bias, initial_state, mask, seq_idx, dt_softplus, reverse
    )
    du, ddt, dA, dB, dC, dD, dz, dbias, dinitial = (u.new_empty(0) if g is None else g for g in found)
    return du, ddt, dA, dB, dC, dD, dz, dbias, dinitial


@torch.library.custom_op("salience::selective_scan_step", mutates_args=("state",))
def selective_scan_step(
    state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    dt_bias: Tensor | None, dt_softplus: bool, backend: str,
) -> Tensor:  # fmt: skip
    """y; the state moves on in place."""
    y: Tensor = kernels(backend).step(state, u, dt, A, B, C, D, z, dt_bias, dt_softplus)
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
    shape = kernels(rest[-1]).saved_shape(batch, length, channels, grouped(B).shape[2], A.shape[1])
    return (
        u.new_empty(u.shape),
        u.new_empty((batch, channels, A.shape[1]), dtype=compute),
        u.new_empty(shape, dtype=compute),
    )


@selective_scan_bwd.register_fake
def _bwd_fake(dy: Tensor, dstate: Tensor | None, saved: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(dy.new_empty(0) if t is None else t.new_empty(t.shape) for t in inputs[:9])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:INPUTS], output[2])
    ctx.options = inputs[INPUTS:]


def _differentiate(ctx: Any, dy: Tensor | None, dstate: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    return _gradients(ctx, dy, dstate, selective_scan_bwd, *ctx.options)


def _gradients(
    ctx: Any, dy: Tensor | None, dstate: Tensor | None, backward: Callable[..., Any], *options: Any
) -> tuple[Any, ...]:
    *inputs, saved = ctx.saved_tensors
    if dy is None:  # only the state was used
        dy = torch.zeros_like(inputs[0])
    found = backward(dy, dstate, saved, *inputs, *options)
    wanted = [None if t is None or not needed else g
              for g, t, needed in zip(found, inputs[:9], ctx.needs_input_grad[:9], strict=True)]  # fmt: skip
    return (*wanted, None, None, None, None, None)


selective_scan_fwd.register_autograd(_differentiate, setup_context=_keep)


class Direct(torch.autograd.Function):
    """(y, state) of the operators' arguments, where nothing compiles: .3 ms of dispatch less, both ways together."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, state, saved = kernels(inputs[-1]).forward(*inputs[:-1], True)
        _keep(ctx, inputs, (y, state, saved))
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
        *options, backend = ctx.options
        return _gradients(ctx, dy, dstate, kernels(backend).backward, *options)
