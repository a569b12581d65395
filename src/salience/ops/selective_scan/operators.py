"""The fused scan as PyTorch operators: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward`, `backward` and `saved_shape`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from salience.core.backend import batched, refuse_tangents, transformed
from salience.ops.derivatives import pullback, pullback_again
from salience.ops.selective_scan import reference
from salience.ops.selective_scan.checks import check_steps, grouped

INPUTS = 11  # tensors among the arguments
LEAVES = 9  # of them with gradients, u .. initial_state


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
    refuse_tangents()
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
    refuse_tangents()
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
    refuse_tangents()
    if not dt_softplus:
        check_steps(dt, dt_bias)
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
    needed = ctx.needs_input_grad[:LEAVES]
    if transformed():  # a batch of gradients, say
        found = _plain_gradients((dy, dstate), inputs[:LEAVES], inputs[LEAVES:], options, needed)
        return (*found, *[None] * (INPUTS - LEAVES + 3))
    if dy is None:  # only the state was used
        dy = torch.zeros_like(inputs[0])
    found = backward(dy, dstate, saved, *inputs, *options)
    wanted = [None if t is None or not need else g for g, t, need in zip(found, inputs[:LEAVES], needed, strict=True)]
    return (*wanted, *[None] * (INPUTS - LEAVES + 3))


def _plain_gradients(
    given: Sequence[Tensor | None], leaves: Sequence[Tensor | None], steps: Sequence[Tensor | None],
    options: Sequence[Any], needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Of the leaves u .. initial_state, through the definition. given: dy, dstate   steps: mask, seq_idx"""
    last: tuple[Any, ...] = (*steps, *options[:2])
    return pullback(lambda *x: reference.forward(*x, *last), leaves, given, needed)


selective_scan_fwd.register_autograd(_differentiate, setup_context=_keep)


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    dy, dstate, _, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(dy, dstate, *rest[:INPUTS])
    ctx.options = rest[INPUTS:]


def _differentiate_again(ctx: Any, *seconds: Tensor | None) -> tuple[Any, ...]:
    """Of dy, dstate and u .. initial_state: the definition's gradients, differentiated."""
    saved, needed = ctx.saved_tensors, ctx.needs_input_grad
    given, leaves, steps = saved[:2], saved[2 : 2 + LEAVES], saved[2 + LEAVES :]
    run = lambda given, leaves, used: _plain_gradients(given, leaves, steps, ctx.options, used)  # noqa: E731
    first, second, *found = pullback_again(run, given, leaves, seconds, (*needed[:2], *needed[3 : 3 + LEAVES]))
    return (first, second, None, *found, *[None] * (INPUTS - LEAVES + 3))


selective_scan_bwd.register_autograd(_differentiate_again, setup_context=_keep_backward)


class Direct(torch.autograd.Function):
    """(y, state) of the operators' arguments, where nothing compiles: .3 ms of dispatch less, both ways together."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, state, saved = kernels(inputs[-1]).forward(*inputs[:-1], True)
        _keep(ctx, inputs, (y, state, saved))
        return y, state

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled() or batched(dy, dstate):  # the operator can be differentiated again, and batched
            return _gradients(ctx, dy, dstate, selective_scan_bwd, *ctx.options)
        *options, backend = ctx.options
        return _gradients(ctx, dy, dstate, kernels(backend).backward, *options)
