"""Autograd of a fused operator with a kernel for its backward pass, shared by the scan and the convolution.

An operator takes `tensors`, of which the first ones (`leaves`) have gradients, then mask, seq_idx, two flags and the
backend's name. It returns y, the last state and what else its backward pass needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from salience.core.backend import batched, transformed
from salience.ops.derivatives import pullback, pullback_again

Optional = Tensor | None
AFTER_LEAVES = 5  # arguments without gradients: mask, seq_idx, two flags, backend


@cache
def kernels(op: str, backend: str) -> Any:
    """The module of an operator's backend ("selective_scan", "cpu"): `forward`, `backward` and others."""
    return importlib.import_module(f"salience.ops.{op}.{backend}")


@dataclass(frozen=True, kw_only=True)
class FusedGradients:
    """Gradients of one operator, first and second order.

    Args:    op: its package under `salience.ops`   leaves: tensors with gradients
             saved: outputs of the forward pass behind y and the state, which its backward pass needs
             pack: (*leaves, mask, seq_idx, *flags) -> the arguments as kernels and reference take them
             reference: the plain form, packed arguments -> y, state; for derivatives without a kernel
    """

    op: str
    leaves: int
    saved: int
    pack: Callable[..., Any]
    reference: Callable[[Any], Sequence[Optional]]

    def register(self, forward: Any, backward: Any) -> None:
        """Set the derivatives of the two operators (`torch.library.custom_op`)."""

        def differentiate(ctx: Any, dy: Optional, dstate: Optional, *_: Optional) -> tuple[Any, ...]:
            return self.gradients(ctx, dy, dstate, backward, *ctx.options)

        forward.register_autograd(differentiate, setup_context=self.keep)
        backward.register_autograd(self._differentiate_again, setup_context=self._keep_backward)

    def direct(self, backward: Any) -> type[torch.autograd.Function]:
        """A Function of the forward operator's arguments -> (y, state), for eager calls.

        It saves the operator's dispatch: 0.3 ms for both passes. `backward` is the operator, which can be
        differentiated again and batched.
        """
        spec = self

        class DirectCall(torch.autograd.Function):
            """(y, state) from the kernel, with its gradients."""

            @staticmethod
            def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
                saving = (True,) if spec.saved else ()
                output = kernels(spec.op, inputs[-1]).forward(spec.pack(*inputs[:-1]), *saving)
                spec.keep(ctx, inputs, output)
                return output[0], output[1]

            @staticmethod
            def backward(ctx: Any, dy: Optional, dstate: Optional) -> tuple[Any, ...]:
                if torch.is_grad_enabled() or batched(dy, dstate):
                    return spec.gradients(ctx, dy, dstate, backward, *ctx.options)
                *options, name = ctx.options
                kernel = kernels(spec.op, name).backward

                def run(dy: Tensor, dstate: Optional, *rest: Any) -> Any:
                    return kernel(dy, dstate, *rest[: spec.saved], spec.pack(*rest[spec.saved :]))

                return spec.gradients(ctx, dy, dstate, run, *options)

        return DirectCall

    def keep(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save for the backward pass: outputs behind y and the state, then the tensors."""
        tensors = self.leaves + 2
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[2:], *inputs[:tensors])
        ctx.options = inputs[tensors:]

    def gradients(self, ctx: Any, dy: Optional, dstate: Optional, backward: Any, *options: Any) -> tuple[Any, ...]:
        """One for each argument of the forward operator; `backward` is a kernel or an operator."""
        tensors = ctx.saved_tensors
        saved, inputs = tensors[: self.saved], tensors[self.saved :]
        leaves, needed = inputs[: self.leaves], ctx.needs_input_grad[: self.leaves]
        if transformed():  # a batch of gradients, for example
            return self._padded(self._plain((dy, dstate), leaves, inputs[self.leaves :], options, needed))
        if dy is None:  # only the state was used
            dy = torch.zeros_like(inputs[0])
        found = backward(dy, dstate, *saved, *inputs, *options)
        return self._padded(
            g if t is not None and need else None for g, t, need in zip(found, leaves, needed, strict=True)
        )

    def _plain(
        self,
        given: Sequence[Optional],
        leaves: Sequence[Optional],
        steps: Sequence[Optional],
        options: Sequence[Any],
        needed: Sequence[bool],
    ) -> tuple[Optional, ...]:
        """Gradients of the leaves through the plain form. given: dy, dstate   steps: mask, seq_idx"""
        return pullback(lambda *x: self.reference(self.pack(*x, *steps, *options[:2])), leaves, given, needed)

    def _keep_backward(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given, rest = inputs[:2], inputs[2 + self.saved :]
        tensors = self.leaves + 2
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *rest[:tensors])
        ctx.options = rest[tensors:]

    def _differentiate_again(self, ctx: Any, *seconds: Optional) -> tuple[Any, ...]:
        """Gradients of dy, dstate and the leaves: the plain form's gradients, differentiated."""
        tensors, split, needed = ctx.saved_tensors, 2 + self.leaves, ctx.needs_input_grad
        given, leaves, steps = tensors[:2], tensors[2:split], tensors[split:]

        def run(given: Sequence[Optional], leaves: Sequence[Optional], used: Sequence[bool]) -> tuple[Optional, ...]:
            return self._plain(given, leaves, steps, ctx.options, used)

        behind = 2 + self.saved
        used = (*needed[:2], *needed[behind : behind + self.leaves])
        first, second, *found = pullback_again(run, given, leaves, seconds, used)
        return (first, second, *[None] * self.saved, *self._padded(found))

    def _padded(self, found: Any) -> tuple[Any, ...]:
        return (*found, *[None] * AFTER_LEAVES)
