"""A fused operator with a kernel for its backward pass: its PyTorch operators and their gradients.

The scan and the convolution share it. Their arguments are a NamedTuple: first the tensors with gradients (`leaves`),
then mask, seq_idx and two flags. Forward and backward are a PyTorch operator each, opaque to torch.compile, for any
backend whose module has `forward` and `backward`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

import torch
from torch import Tensor

from salience.core.backend import batched, refuse_tangents, transformed
from salience.ops.derivatives import pullback

Optional = Tensor | None
Optionals = Sequence[Optional]
AFTER_LEAVES = 5  # arguments without gradients: mask, seq_idx, two flags, backend
SCHEMA_TYPES = {Tensor: "Tensor", Optional: "Tensor?", bool: "bool"}


@cache
def kernels(op: str, backend: str) -> Any:
    """The module of an operator's backend ("selective_scan", "cpu"): `forward`, `backward` and others."""
    return importlib.import_module(f"salience.ops.{op}.{backend}")


@dataclass(frozen=True, kw_only=True)
class FusedOperator:
    """Forward and backward of one operator, and its gradients of first and second order.

    Args:    op: its package under `salience.ops`   leaves: number of tensors with gradients
             saved: 1 if the forward pass has an output behind y and the state, for the backward pass; else 0
             pack: the NamedTuple of the arguments without the backend
             reference: the plain form, packed arguments -> y, state; for derivatives without a kernel
    """

    op: str
    leaves: int
    saved: int
    pack: Callable[..., Any]
    reference: Callable[[Any], Optionals]

    def register(self, fake: Callable[..., tuple[Tensor, ...]]) -> tuple[Any, type[torch.autograd.Function]]:
        """Define `salience::<op>_fwd` and `_bwd`. Returns the forward operator, and `DirectCall` for eager calls.

        Args:    fake: (packed arguments, backend) -> empty outputs of the forward pass
        """
        named = ", ".join(f"{SCHEMA_TYPES[kind]} {name}" for name, kind in get_type_hints(self.pack).items())
        known = ", ".join(["Tensor dy", "Tensor? dstate", *["Tensor saved"] * self.saved])
        outputs, gradients = (", ".join(["Tensor"] * count) for count in (2 + self.saved, self.leaves))

        def run_forward(*inputs: Any) -> tuple[Tensor, ...]:
            refuse_tangents()
            return self._run_forward(inputs)

        def run_backward(*inputs: Any) -> tuple[Tensor, ...]:
            refuse_tangents()
            like: Tensor = inputs[2 + self.saved]
            # an operator cannot return None: empty for what is absent
            return tuple(like.new_empty(0) if g is None else g for g in self._run_backward(*inputs))

        def fake_backward(*inputs: Any) -> tuple[Tensor, ...]:
            given = inputs[2 + self.saved :]
            return tuple(given[0].new_empty(0 if t is None else t.shape) for t in given[: self.leaves])

        def differentiate(ctx: Any, dy: Optional, dstate: Optional, *_: Optional) -> tuple[Any, ...]:
            return self._gradients(ctx, dy, dstate, backward)

        define = torch.library.custom_op
        forward = define(f"salience::{self.op}_fwd", run_forward, mutates_args=(),
                         schema=f"({named}, str backend) -> ({outputs})")  # fmt: skip
        backward = define(f"salience::{self.op}_bwd", run_backward, mutates_args=(),
                          schema=f"({known}, {named}, str backend) -> ({gradients})")  # fmt: skip
        forward.register_fake(lambda *inputs: fake(self.pack(*inputs[:-1]), inputs[-1]))
        backward.register_fake(fake_backward)
        forward.register_autograd(differentiate, setup_context=self._keep)
        backward.register_autograd(self._differentiate_again, setup_context=self._keep_backward)
        return forward, self._direct(backward)

    def _direct(self, backward: Any) -> type[torch.autograd.Function]:
        """A Function of the forward operator's arguments -> (y, state).

        It saves the operator's dispatch: 0.3 ms for both passes. `backward` is the operator, which can be
        differentiated again and batched.
        """
        spec = self

        class DirectCall(torch.autograd.Function):
            """(y, state) from the kernel, with its gradients."""

            @staticmethod
            def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
                output = spec._run_forward(inputs)
                spec._keep(ctx, inputs, output)
                return output[0], output[1]

            @staticmethod
            def backward(ctx: Any, dy: Optional, dstate: Optional) -> tuple[Any, ...]:
                again = torch.is_grad_enabled() or batched(dy, dstate)
                return spec._gradients(ctx, dy, dstate, backward if again else spec._run_backward)

        return DirectCall

    def _run_forward(self, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        saving = [True] * self.saved
        found: tuple[Tensor, ...] = kernels(self.op, inputs[-1]).forward(self.pack(*inputs[:-1]), *saving)
        return found

    def _run_backward(self, dy: Tensor, dstate: Optional, *rest: Any) -> tuple[Optional, ...]:
        saved, given = rest[: self.saved], self.pack(*rest[self.saved : -1])
        found: tuple[Optional, ...] = kernels(self.op, rest[-1]).backward(dy, dstate, *saved, given)
        return found

    def _keep(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save for the backward pass: outputs behind y and the state, then the tensors."""
        self._save(ctx, output[2:], inputs)

    def _keep_backward(self, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        self._save(ctx, inputs[:2], inputs[2 + self.saved :])

    def _save(self, ctx: Any, first: Sequence[Optional], inputs: tuple[Any, ...]) -> None:
        tensors = self.leaves + 2
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*first, *inputs[:tensors])
        ctx.options = inputs[tensors:]

    def _gradients(self, ctx: Any, dy: Optional, dstate: Optional, backward: Any) -> tuple[Any, ...]:
        """One for each argument of the forward operator; `backward` is a kernel or an operator."""
        tensors = ctx.saved_tensors
        saved, inputs = tensors[: self.saved], tensors[self.saved :]
        leaves, needed = inputs[: self.leaves], ctx.needs_input_grad[: self.leaves]
        if transformed():  # a batch of gradients, for example
            return self._padded(self._plain((dy, dstate), leaves, inputs[self.leaves :], ctx.options, needed))
        if dy is None:  # only the state was used
            dy = torch.zeros_like(inputs[0])
        found = backward(dy, dstate, *saved, *inputs, *ctx.options)
        return self._padded(
            g if t is not None and need else None for g, t, need in zip(found, leaves, needed, strict=True)
        )

    def _plain(self, given: Optionals, leaves: Optionals, steps: Optionals, options: Sequence[Any],
               needed: Sequence[bool]) -> tuple[Optional, ...]:  # fmt: skip
        """Gradients of the leaves through the plain form. given: dy, dstate   steps: mask, seq_idx"""
        return pullback(lambda *x: self.reference(self.pack(*x, *steps, *options[:2])), leaves, given, needed)

    def _differentiate_again(self, ctx: Any, *seconds: Optional) -> tuple[Any, ...]:
        """Gradients of dy, dstate and the leaves: the plain form's gradients, differentiated."""
        tensors, split, needed = ctx.saved_tensors, 2 + self.leaves, ctx.needs_input_grad
        given, leaves, steps = tensors[:2], tensors[2:split], tensors[split:]

        def gradients(*inputs: Optional) -> tuple[Optional, ...]:
            used = [g is not None for g in seconds]
            return self._plain(inputs[:2], inputs[2:], steps, ctx.options, used)

        behind = 2 + self.saved
        used = (*needed[:2], *needed[behind : behind + self.leaves])
        first, second, *found = pullback(gradients, (*given, *leaves), seconds, used)
        return (first, second, *[None] * self.saved, *self._padded(found))

    def _padded(self, found: Any) -> tuple[Any, ...]:
        return (*found, *[None] * AFTER_LEAVES)
