"""State that a layer carries from one step to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor


@dataclass(eq=False)
class LayerState:
    """Base of the layers' states. Iterating gives the tensors, whose first axis is the batch."""

    def __iter__(self) -> Iterator[Tensor]:
        return (value for value in vars(self).values() if isinstance(value, Tensor))

    def take(self, rows: Tensor) -> Self:
        """State of these rows (n,), in this order."""
        return self._each(lambda tensor: tensor.index_select(0, rows))

    def clone(self) -> Self:
        """Copy that `step` may change without changing this one."""
        return self._each(Tensor.clone)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)
