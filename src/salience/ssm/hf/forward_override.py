"""A forward of our own on one module instance: how it is put on, found, and taken off again."""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import nn

# accelerate puts its own `forward` on a module and keeps the one it calls under the second name; see `HeadOfFewBits`
_SLOTS = ("forward", "_old_forward", "weight")


class Override:
    """What stands in for `module.forward`. Holds only its module, so that copies and pickles of a model stay fused."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self.active = True
        self.before: Any = None  # what the instance had in this place: accelerate's hooks keep a method here

    def install(self, slot: str) -> None:
        """Override the module's forward, on the instance."""
        held = self.module.__dict__
        if slot in held:
            self.before = held[slot]
        held[slot] = self

    def remove(self) -> None:
        """Take it off; whoever wrapped it meanwhile keeps theirs, and it lets everything through."""
        self.active = False
        held = self.module.__dict__
        for slot in _SLOTS:
            if held.get(slot) is not self:
                continue
            if self.before is not None:
                held[slot] = self.before
            elif slot != "_old_forward":
                del held[slot]
            else:  # hooked since: accelerate calls whatever is under this name
                held[slot] = MethodType(type(self.module).forward, self.module)


def override_of(module: nn.Module) -> Override | None:
    """Our forward on this module, if it has one that is in force."""
    for slot in _SLOTS:
        found = module.__dict__.get(slot)
        if isinstance(found, Override) and found.active:
            return found
    return None


def free_slot(module: nn.Module) -> str | None:
    """Where this module's forward is to be overridden; None when somebody else has replaced it on this instance."""
    held: Any = module.__dict__
    if "forward" not in held:
        return "forward"
    return "_old_forward" if "_old_forward" in held else None
