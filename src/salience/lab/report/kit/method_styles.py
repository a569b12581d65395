"""Roles of methods by name (learned, training-free, oracle, control) and their drawing styles."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["learned", "free", "oracle", "control"]
Dash = tuple[float, ...]

_NAMES = {
    "saliency": "learned saliency",
    "cls-attention": "[CLS] attention",
    "random": "random",
    "uniform": "uniform grid",
    "oracle": "oracle",
    "oracle-question": "oracle, question",
    "divprune": "DivPrune",
    "fastv": "FastV",
    "prumerge": "PruMerge",
    "prumerge+": "PruMerge+",
    "pyramiddrop": "PyramidDrop",
    "sparsevlm": "SparseVLM",
    "tome": "ToMe",
    "visionzip": "VisionZip",
    "vispruner": "VisPruner",
}
_PHRASES = {
    "saliency": "the learned saliency",
    "random": "random tokens",
    "uniform": "a uniform grid",
    "oracle": "the all-items oracle",
    "oracle-question": "the oracle of the items asked about",
}


@dataclass(frozen=True, kw_only=True)
class Style:
    """Style of a method's line. colour: palette role   marker: matplotlib's   dash: on and off lengths in points"""

    colour: str
    marker: str
    dash: Dash = ()
    width: float = 1.6


_KNOWN = {
    "saliency": Style(colour="blue", marker="o", width=2.6),
    "cls-attention": Style(colour="orange", marker="s"),
    "uniform": Style(colour="green", marker="^", dash=(6, 2)),
    "random": Style(colour="grey", marker="D", dash=(2, 2)),
    "divprune": Style(colour="pink", marker="v"),
    "vispruner": Style(colour="olive", marker="P", dash=(4, 2)),
    "visionzip": Style(colour="cyan", marker=">", dash=(3, 1.5)),
    "oracle": Style(colour="purple", marker="*", dash=(7, 2, 1.5, 2)),
    "oracle-question": Style(colour="cyan", marker="X", dash=(7, 2, 1.5, 2, 1.5, 2)),
}
_SPARE = (
    Style(colour="pink", marker="v"),
    Style(colour="olive", marker="P", dash=(4, 2)),
    Style(colour="pink", marker="<", dash=(1.5, 1.5)),
    Style(colour="olive", marker="h", dash=(8, 3)),
    Style(colour="cyan", marker=">", dash=(3, 1.5)),
    Style(colour="grey", marker="d", dash=(1, 1)),
    Style(colour="green", marker="p", dash=(4, 1, 1, 1)),
)


def role(method: str) -> Role:
    """Return the role of a method by its name.

    Learned scorers begin with 'saliency', oracles with 'oracle'; shuffled and untrained scorers are controls, and
    every other method needs no training.
    """
    if "shuffled" in method or "untrained" in method or method.startswith("control"):
        return "control"
    if method.startswith("oracle"):
        return "oracle"
    return "learned" if method.startswith("saliency") else "free"


def title(method: str) -> str:
    """The name in a figure or a sentence."""
    if role(method) == "control":
        return " ".join(part for part in method.split("-") if part not in ("saliency", "control")) + " control"
    return _NAMES.get(method, method)


def phrase(method: str) -> str:
    """The name inside a sentence, with its article."""
    if role(method) == "control":
        return f"the {title(method)}"
    return _PHRASES.get(method, title(method))


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """One style each: the well-known keep theirs in every report, the others take spare ones in order."""
    taken = {(style.colour, style.marker) for name, style in _KNOWN.items() if name in methods}
    free = [style for style in _SPARE if (style.colour, style.marker) not in taken]
    spare = iter(free * (1 + len(methods) // len(free)))
    return {method: _KNOWN.get(method) or next(spare) for method in methods}


def drawn(methods: Sequence[str], most: int = 8, best: Sequence[str] = ()) -> list[str]:
    """Those that a figure shows when there are many: the study's own, the references, then in order.

    best: that must be among them, for sentences name them
    """
    first = ("saliency", "random", *dict.fromkeys(best), "oracle", "cls-attention", "uniform", *methods)
    chosen = [name for name in dict.fromkeys(first) if name in methods][:most]
    return [name for name in methods if name in chosen]
