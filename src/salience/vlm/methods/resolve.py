"""The method that a caller means by a name, a class path, a method, a scorer, or a scorer's folder or hub id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from salience.vlm.methods.base import Method
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.random import Random
from salience.vlm.methods.registry import METHODS, is_class_path, method_class
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.uniform import Uniform
from salience.vlm.scorers.scorer import Scorer


def resolve_method(
    method: object, *, seed: int, home: Path | None, has_attention: bool, not_in: Sequence[str] = ()
) -> Method:
    """Return the method meant by a name, "module:Class", a `Method`, a `Scorer`, or a scorer's folder or hub id.

    Args:    seed: for "random"   home: the folder of the scorer made for exactly this model, None if there is none
             has_attention: whether the tower's attention can be read, [CLS]'s or its substitute
             not_in: clauses on the places where no such scorer was found, for the error
    Raises:  ValueError when nothing is known by that name, or what it needs is missing
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, Scorer):
        return Saliency(scorer=method)
    if isinstance(method, Path):
        return Saliency(scorer=Scorer.from_pretrained(method))
    if not isinstance(method, str):
        kind = type(method).__name__
        raise ValueError(f"method must be a name, a Method, a Scorer or a scorer's folder, not a {kind}.")
    if method == "auto" and home is None:
        return ClsAttention() if has_attention else Uniform()
    if method in ("auto", "saliency"):
        if home is None:
            places = f" ({', '.join(not_in)})" if not_in else ""
            raise ValueError(
                "method 'saliency' needs a scorer made for exactly this model, and there is "
                f"none{places}: train one with `salience fit`, or use a training-free method such as 'cls-attention'."
            )
        return Saliency(scorer=Scorer.from_pretrained(home))
    if method == "random":
        return Random(seed=seed)
    if method == "oracle":
        raise ValueError("method 'oracle' needs boxes: pass salience.Oracle(boxes=..., image_size=...) itself.")
    if method in METHODS or is_class_path(method):
        return method_class(method)()
    if method and (Path(method).is_dir() or "/" in method):
        return Saliency(scorer=Scorer.from_pretrained(method))
    names = sorted({*METHODS, "auto"})
    near = difflib.get_close_matches(method.lower(), names, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(
        f"method must be one of {', '.join(names)}, a class of your own as 'module:Class', or a scorer's folder or hub "
        f"id 'owner/name', not {method!r}{meant}."
    )
