"""The head of a fused language model: reading it is a third of a small model's decoding."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from salience.ops.linear_rows import linear_rows
from salience.ssm.hf.forward_override import Override
from salience.ssm.layers.projections import is_plain


def plain_head(model: Any) -> nn.Linear | None:
    """The language model's head where it is a linear layer that nobody wrapped."""
    found = getattr(model, "get_output_embeddings", None)
    head = None if found is None else found()
    return head if isinstance(head, nn.Linear) and is_plain(head) else None


def head_of_few_bits(model: Any) -> nn.Module | None:
    """The language model's head where dynamic quantisation made its `weight` a method."""
    found = getattr(model, "get_output_embeddings", None)
    head = None if found is None else found()
    quantised = isinstance(head, nn.Module) and isinstance(getattr(head, "weight", None), MethodType)
    return head if quantised else None


class HeadOfFewBits(Override):
    """The `weight` of a quantised head: the method that it is, with the dtype that transformers' models ask it for."""

    dtype = torch.float32  # what dynamically quantised layers take and give

    def __call__(self) -> Any:
        return type(self.module).weight(self.module)


class FusedHead(Override):
    """The forward of the language model's head, an `nn.Linear`: in decoding it is read for one row at a time."""

    def __init__(self, head: nn.Linear, backend: str) -> None:
        super().__init__(head)
        self.backend = backend

    def __call__(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Linear's name)
        head = self.module
        return linear_rows(input, head.weight, head.bias, backend=self.backend if self.active else "reference")
