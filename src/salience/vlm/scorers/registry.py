"""Architectures of scorers in one static table: name -> "module:class"."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

#: A class takes a `ScorerConfig`; its module maps features (..., n, d) to logits (..., n).
ARCHITECTURES = {"mlp": "salience.vlm.scorers.mlp:MLP"}


def architecture_class(name: str) -> type[nn.Module]:
    """The network class of an architecture in `ARCHITECTURES`."""
    module, _, attribute = ARCHITECTURES[name].partition(":")
    found: type[nn.Module] = getattr(importlib.import_module(module), attribute)
    return found
