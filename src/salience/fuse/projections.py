"""The projections of a fused model: called as they are, or, where that is the same, read by the kernel for few rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as every_module

from salience.fuse.override import Override
from salience.ops.linear_rows import linear_rows


def project(linear: Any, x: Tensor, backend: str) -> Tensor:
    """linear(x). What wraps or hooks it (LoRA, quantisation, accelerate) takes part: then it is called."""
    if not _plain(linear):
        called: Tensor = linear(x)
        return called
    weights = linear._parameters
    return linear_rows(x, weights["weight"], weights["bias"], backend=backend)


def _plain(linear: nn.Module) -> bool:
    """Whether calling it does nothing but multiply."""
    return (
        type(linear) is nn.Linear
        and "forward" not in linear.__dict__
        and not linear._forward_hooks
        and not linear._forward_pre_hooks
        and not linear._backward_hooks
        and not linear._backward_pre_hooks
        and not every_module._global_forward_hooks
        and not every_module._global_forward_pre_hooks
    )


def plain_head(model: Any) -> nn.Linear | None:
    """The language model's head where it is a linear layer that nobody wrapped; reading it is a third of a small
    model's decoding."""
    found = getattr(model, "get_output_embeddings", None)
    head = None if found is None else found()
    return head if isinstance(head, nn.Linear) and _plain(head) else None


class FusedHead(Override):
    """The forward of the language model's head, an `nn.Linear`: in decoding it is read for one row at a time."""

    def __init__(self, head: nn.Linear, backend: str) -> None:
        super().__init__(head)
        self.backend = backend

    def __call__(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Linear's name)
        head = self.module
        return linear_rows(input, head.weight, head.bias, backend=self.backend if self.active else "reference")
