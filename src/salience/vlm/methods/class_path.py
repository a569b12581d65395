"""A method of the user's own, named "module:Class"."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from types import ModuleType

from salience.vlm.methods.base import Method

_NAME = r"[^\W\d]\w*"
_CLASS_PATH = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")


def is_class_path(name: object) -> bool:
    """Whether a method's name has the form "module:Class", such as "my_methods:Newest"."""
    return isinstance(name, str) and _CLASS_PATH.fullmatch(name) is not None


def import_method_class(path: str) -> type[Method]:
    """Import the class that "module:Class" names; nothing else is imported.

    Raises:  ValueError when the module or the class is missing or fails to import, the class is no `Method`, or it
             can't be made without arguments
    """
    module_name, _, name = path.partition(":")
    module = _imported(path, module_name)
    found = getattr(module, name, None)
    if found is None:
        near = difflib.get_close_matches(name, vars(module), n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"method {path!r}: module {module_name!r}{_file(module)} has no class {name!r}{meant}.")
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


def _imported(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises while it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"method {path!r}: there is no module {error.name!r} on Python's search path.") from error
        line = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(f"method {path!r}: importing {name!r} fails with {type(error).__name__} ({line}).") from error


def _file(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f" ({file})" if file else ""
