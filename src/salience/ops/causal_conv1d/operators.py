"""The fused convolution as PyTorch operators: differentiable, and opaque to torch.compile.

Forward and backward are an operator each, for any backend whose module has `forward` and `backward`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
    y, state = kernels(backend).forward(x, weight, bias, initial_state, mask, seq_idx, silu, reverse)
    return y, state


@torch.library.custom_op("salience::causal_conv1d_bwd", mutates_args=())
def causal_conv1d_bwd(
    dy: Tensor, dstate: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None,
    mask: Tensor | None, seq_idx: Tensor | None, silu: bool, reverse: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, weight, bias and initial_state; an operator cannot return None: empty for what is absent."""
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
    y: Tensor = kernels(backend).step(state, x, weight, bias, silu)
    return y


@causal_conv1d_step.register_fake
def _step_fake(state: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _differentiate(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
    return _gradients(ctx, dy, dstate, causal_conv1d_bwd, *ctx.options)


def _gradients(
    ctx: Any, dy: Tensor | None, dstate: Tensor | None, backward: Callable[..., Any], *options: Any
) -> tuple[Any, ...]:
    inputs = ctx.saved_tensors
    if dy is None:  # only the state was used
        dy = torch.zeros_like(inputs[0])
    found = backward(dy, dstate, *inputs, *options)
    wanted = [None if t is None or not needed else g
              for g, t, needed in zip(found, inputs[:4], ctx.needs_input_grad[:4], strict=True)]  # fmt: skip
    return (*wanted, None, None, None, None, None)


causal_conv1d_fwd.register_autograd(_differentiate, setup_context=_keep)


class Direct(torch.autograd.Function):
    """(y, state) of the operators' arguments, where nothing compiles: without an operator's dispatch."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, state = kernels(inputs[-1]).forward(*inputs[:-1])
        _keep(ctx, inputs, (y, state))
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Any, ...]:
        *options, backend = ctx.options
        return _gradients(ctx, dy, dstate, kernels(backend).backward, *options)
