"""The fused convolution as PyTorch operators: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward` and `backward`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from salience.core.backend import batched, refuse_tangents, transformed
from salience.ops.causal_conv1d import reference
from salience.ops.derivatives import pullback, pullback_again

INPUTS = 6  # tensors among the arguments
LEAVES = 4  # of them with gradients, x .. initial_state


@cache
def kernels(backend: str) -> Any:
    """The module of a fused backend: `forward`, `backward`, `step`."""
    return importlib.import_module(f"salience.ops.causal_conv1d.{backend}")


@torch.library.custom_op("salience::causal_conv1d_fwd", mutates_args=())
def causal_conv1d_fwd(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, mask: Tensor | None,
    seq_idx: Tensor | None, silu: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y and the state."""
    refuse_tangents()
    y, state = kernels(backend).forward(x, weight, bias, initial_state, mask, seq_idx, silu, reverse)
    return y, state


@torch.library.custom_op("salience::causal_conv1d_bwd", mutates_args=())
def causal_conv1d_bwd(
    dy: Tensor, dstate: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None,
    mask: Tensor | None, seq_idx: Tensor | None, silu: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, weight, bias and initial_state; an operator cannot return None: empty for what is absent."""
    refuse_tangents()
    found = kernels(backend).backward(dy, dstate, x, weight, bias, initial_state, mask, seq_idx, silu, reverse)
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
    """y; the state moves on in place."""
    refuse_tangents()
    y: Tensor = kernels(backend).step(state, x, weight, bias, silu)
    return y


@causal_conv1d_step.register_fake
def _step_fake(state: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:INPUTS])
    ctx.options = inputs[INPUTS:]


def _differentiate(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
    return _gradients(ctx, dy, dstate, causal_conv1d_bwd, *ctx.options)


def _gradients(
    ctx: Any, dy: Tensor | None, dstate: Tensor | None, backward: Callable[..., Any], *options: Any
) -> tuple[Any, ...]:
    inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[:LEAVES]
    if transformed():  # a batch of gradients, say
        found = _plain_gradients((dy, dstate), inputs[:LEAVES], inputs[LEAVES:], options, needed)
        return (*found, *[None] * (INPUTS - LEAVES + 3))
    if dy is None:  # only the state was used
        dy = torch.zeros_like(inputs[0])
    found = backward(dy, dstate, *inputs, *options)
    wanted = [None if t is None or not need else g for g, t, need in zip(found, inputs[:LEAVES], needed, strict=True)]
    return (*wanted, *[None] * (INPUTS - LEAVES + 3))


def _plain_gradients(
    given: Sequence[Tensor | None], leaves: Sequence[Tensor | None], steps: Sequence[Tensor | None],
    options: Sequence[Any], needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Of the leaves x .. initial_state, through the definition. given: dy, dstate   steps: mask, seq_idx"""
    last: tuple[Any, ...] = (*steps, *options[:2])
    return pullback(lambda *x: reference.forward(*x, *last), leaves, given, needed)


causal_conv1d_fwd.register_autograd(_differentiate, setup_context=_keep)


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[: 2 + INPUTS])
    ctx.options = inputs[2 + INPUTS :]


def _differentiate_again(ctx: Any, *seconds: Tensor | None) -> tuple[Any, ...]:
    """Of dy, dstate and x .. initial_state: the definition's gradients, differentiated."""
    saved = ctx.saved_tensors
    given, leaves, steps = saved[:2], saved[2 : 2 + LEAVES], saved[2 + LEAVES :]
    run = lambda given, leaves, used: _plain_gradients(given, leaves, steps, ctx.options, used)  # noqa: E731
    found = pullback_again(run, given, leaves, seconds, ctx.needs_input_grad[: 2 + LEAVES])
    return (*found, *[None] * (INPUTS - LEAVES + 3))


causal_conv1d_bwd.register_autograd(_differentiate_again, setup_context=_keep_backward)


class Direct(torch.autograd.Function):
    """(y, state) of the operators' arguments, where nothing compiles: without an operator's dispatch."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, state = kernels(inputs[-1]).forward(*inputs[:-1])
        _keep(ctx, inputs, (y, state))
        return y, state

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
        if torch.is_grad_enabled() or batched(dy, dstate):  # the operator can be differentiated again, and batched
            return _gradients(ctx, dy, dstate, causal_conv1d_bwd, *ctx.options)
        *options, backend = ctx.options
        return _gradients(ctx, dy, dstate, kernels(backend).backward, *options)
