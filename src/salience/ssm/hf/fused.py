"""The handle on a fused model: what was put on it, and how it comes off again."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch import nn

from salience.ssm.hf.forward_override import Override, override_of
from salience.ssm.hf.mixer_forward import FusedForward


class Fused:
    """A fused model: a context manager, and a handle with `undo()`.

    layers: the names of the mixers that run on this package's operators, in the model's order.

    A copy of a fused model (deepcopy, pickle) is fused too, and on its own: `Fused.of(copy)` is the copy's handle.
    """

    def __init__(self, overrides: Sequence[tuple[str, Override]]) -> None:
        self.layers = tuple(name for name, each in overrides if isinstance(each, FusedForward))
        self._overrides = tuple(each for _, each in overrides)

    @classmethod
    def of(cls, model: nn.Module) -> Fused:
        """The handle on what is fused in `model`, made anew; a ValueError where nothing is."""
        found = [(name, each) for name, module in model.named_modules() if (each := override_of(module))]
        if not found:
            raise ValueError(f"model is a {type(model).__name__} in which nothing is fused.")
        return cls(found)

    def undo(self) -> None:
        """Put everything back as it was; doing it again does nothing."""
        for each in self._overrides:
            each.remove()

    close = undo

    def __enter__(self) -> Fused:
        if not any(each.active for each in self._overrides):
            raise ValueError("this fusion has been undone: call salience.fuse again.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        kinds = sorted({each.family.name for each in self._overrides if isinstance(each, FusedForward)})
        state = "" if any(each.active for each in self._overrides) else ", undone"
        return f"Fused({len(self.layers)} x {', '.join(kinds)}{state})"
