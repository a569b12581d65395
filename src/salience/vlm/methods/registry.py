"""Pruning methods in one static table: name -> "module:class"; a method of the user's own is named the same way."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re

from salience.vlm.methods.base import Method

METHODS = {
    "cls-attention": "salience.vlm.methods.cls_attention:ClsAttention",
    "divprune": "salience.vlm.methods.divprune:DivPrune",
    "fastervlm": "salience.vlm.methods.cls_attention:ClsAttention",  # the paper's own name for it
    "fastv": "salience.vlm.methods.fastv:FastV",
    "oracle": "salience.vlm.methods.oracle:Oracle",
    "prumerge": "salience.vlm.methods.prumerge:PruMerge",
    "prumerge+": "salience.vlm.methods.prumerge:PruMergePlus",
    "pyramiddrop": "salience.vlm.methods.pyramiddrop:PyramidDrop",
    "random": "salience.vlm.methods.random:Random",
    "saliency": "salience.vlm.methods.saliency:Saliency",
    "sparsevlm": "salience.vlm.methods.sparsevlm:SparseVLM",
    "temporal": "salience.vlm.methods.temporal:Temporal",
    "tome": "salience.vlm.methods.tome:ToMe",
    "uniform": "salience.vlm.methods.uniform:Uniform",
    "visionzip": "salience.vlm.methods.visionzip:VisionZip",
    "vispruner": "salience.vlm.methods.vispruner:VisPruner",
}
_NAME = r"[^\W\d]\w*"
_CLASS_PATH = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")


def method_class(name: str) -> type[Method]:
    """The class behind a method's name, or behind "module:Class".

    Raises:  ValueError when there is no such method, or the class is no `Method` or can't be made without arguments
    """
    if is_class_path(name):
        return _own_class(name)
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(sorted(METHODS))}, not {name!r}.")
    found: type[Method] = pkgutil.resolve_name(METHODS[name])
    return found


def is_class_path(name: object) -> bool:
    """Whether a method's name has the form "module:Class", such as "my_methods:Newest"."""
    return isinstance(name, str) and _CLASS_PATH.fullmatch(name) is not None


def _own_class(path: str) -> type[Method]:
    """Import the class that "module:Class" names; nothing else is imported."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"method {path!r}: there is no module {error.name!r} on Python's search path.") from error
        line = str(error).strip().partition("\n")[0].rstrip(".")
        fails = f"importing {module_name!r} fails with {type(error).__name__} ({line})"
        raise ValueError(f"method {path!r}: {fails}.") from error
    found = getattr(module, name, None)
    if found is None:
        near = difflib.get_close_matches(name, vars(module), n=1)
        where = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"method {path!r}: module {module_name!r}{where} has no class {name!r}{meant}.")
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(f"method {path!r} must name a subclass of salience.Method, not {found!r:.80}.")
    parameters = inspect.signature(found).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
    if required:
        raise ValueError(
            f"method {path!r} needs arguments ({', '.join(required)}), which a name can't give: name a subclass with "
            f"defaults, or pass a {name} itself to salience.prune."
        )
    return found
