"""Runs an unmodified transformers Mamba on this package's operators; alone owns what is put on such a model.

    model = AutoModelForCausalLM.from_pretrained("state-spaces/mamba-130m-hf")
    with salience.fuse(model):                              # or: handle = salience.fuse(model) ... handle.undo()
        tokens = model.generate(**inputs, max_new_tokens=20)

What the documentation shows: the lines above, `handle.layers`, training (the same weights get the gradients), and
where a fused model differs, because transformers is wrong (`salience.fuse.forward` lists it): several tokens on a
filled cache continue its state.
"""

import sys
from types import ModuleType

from torch import nn

from salience.fuse.entrance import fuse
from salience.fuse.handle import Fused

__all__ = ["Fused", "fuse"]


class _Callable(ModuleType):
    """The package and its one function share a name: `salience.fuse(model)` and `salience.fuse.Fused` both work."""

    def __call__(self, model: nn.Module, *, backend: str = "auto") -> Fused:
        return fuse(model, backend=backend)

    __call__.__doc__ = fuse.__doc__


sys.modules[__name__].__class__ = _Callable
