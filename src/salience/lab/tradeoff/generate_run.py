"""The trade-off where nothing of a model's insides may be assumed: any family, any method, any pictures.

Every question goes through `generate` under `salience.prune`, as a user's would, or through a quicker way that says the
same (`packed_asking`). What needs scenes (probe, cosine, attention kept, oracles) is not measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

import salience
from salience.core.progress import ProgressBars
from salience.core.record import Record
from salience.core.result_rows import ROW_COLUMNS
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.packed_evaluator import evaluator_for
from salience.lab.evaluate.picture_tasks import PictureTask, picture_task
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff.config import RIVALS, TradeoffConfig
from salience.lab.tradeoff.differences import DEFINITION, MARKS, blind_differences, differences, kind_differences
from salience.lab.tradeoff.generate_costs import clock
from salience.lab.tradeoff.generate_rows import asked_rows, spelt
from salience.lab.tradeoff.methods_under_test import (
    Arm,
    admit,
    by_default,
    learned,
    published,
    training_free,
    untrained,
)
from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method
from salience.vlm.scorers.scorer import Scorer

#: What is compared where no methods are named.
DEFAULT = ("saliency", "cls-attention", *RIVALS, "uniform", "random")
#: The longest answer of the task takes two tokens and the end.
SCENES_TOKENS = 4
_ORACLES = ("oracle", "oracle-question", "saliency-shuffled")
DEFINITIONS = {
    "accuracy": "vqa_accuracy where a question has four answers or more, else exact_match; of greedy answers",
    "accuracy_low, accuracy_high": "95 % percentile bootstrap, 2,000 draws of whole pictures",
    "exact_match": "share of the answers that are one of the accepted ones, letter case and the last full stop aside",
    "vqa_accuracy": "over all ways to leave one of the people out, min(1, others who said the same / 3), the mean",
    "loglikelihood_accuracy": "share of the questions with choices whose right one has the highest log-likelihood",
    "tokens_kept": "mean over pictures of the visual tokens that the language model read",
    "first_token_ms, decode_ms_per_token": "of the first question, processor left out, `generate` as a whole; median",
    "differences": DEFINITION,
}


def run_asked(
    adapter: Adapter,
    processor: Any,
    config: TradeoffConfig,
    *,
    name: str,
    fitted: Mapping[int, Scorer],
    cache: ResultCache,
    bars: ProgressBars,
) -> Record:
    """A record of kind "tradeoff", what was not measured null.

    Raises:  ValueError for a method that this model can't carry, or that needs boxes; for a picture that can't be read,
             naming its row
    """
    task = picture_task(config)
    _look_at_all(task, bars)
    asking = evaluator_for(adapter, processor, task.groups, instruction=config.instruction, positions=config.positions)
    arms = asked_arms(adapter, config, fitted)
    substitute = admit(adapter, [method for _, _, method in arms], min(config.keeps), positions=config.positions)
    _try(asking, arms, config.keeps)
    picture = torch.tensor([number for number, group in enumerate(task.groups) for _ in group])
    rows, whole = asked_rows(asking, config, arms, None, picture, cache, bars)
    if config.costs:
        _add_times(rows, asking, config, arms, cache, bars)
    apart = differences(rows, picture)
    without = blind_differences(rows, picture, task.blind)
    by_kind = kind_differences(rows, picture, [spelt(sample.kind) for group in task.groups for sample in group])
    rows = [_row({key: value for key, value in row.items() if key != MARKS}) for row in rows]
    about = {
        "model": name, "task": config.task, "layout": task.layout, "n_pictures": len(task.groups),
        "n_questions": len(picture), "n_visual_tokens": whole["tokens_kept"], "keeps": list(config.keeps),
        "seed": config.seed, "positions": config.positions, "instruction": config.instruction,
        "full_accuracy": whole["accuracy"], **task.baselines, "methods": list(dict.fromkeys(r["method"] for r in rows)),
        "definitions": DEFINITIONS, "timing_repeats": config.repeats if config.costs else 0, "timed_batch": 1,
        "control_other_picture_accuracy": None, "substitute": substitute,
    }  # fmt: skip
    return {"kind": "tradeoff", "config": about, "rows": rows, "differences": apart, "blind_differences": without,
            "kind_differences": by_kind, "examples": []}  # fmt: skip


def inside_rows(
    adapter: Adapter, processor: Any, config: TradeoffConfig, groups: Sequence[Sequence[Any]], whole: Mapping[str, Any],
    costs: Mapping[tuple[str, float], Mapping[str, Any]], cache: ResultCache, bars: ProgressBars,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows, marks included, of the methods that work inside the model, on pictures of the `scenes` task.

    whole: the row's quality with all tokens, as the study measured it   costs: (method, keep) -> cost columns, if any
    """
    inside = replace(config, methods=config.inside)
    if not inside.methods:
        return []
    asking = GenerateEvaluator(
        adapter.model, processor, groups, positions=config.positions, max_new_tokens=SCENES_TOKENS
    )
    picture = torch.tensor([number for number, group in enumerate(groups) for _ in group])
    full = {**whole, "tokens_kept": adapter.n_tokens}
    arms = asked_arms(adapter, inside, {})
    _try(asking, arms, config.keeps)
    rows, _ = asked_rows(asking, inside, arms, full, picture, cache, bars)
    return [{**_row({**costs.get((row["method"], row["keep"]), {}), **row}), MARKS: row[MARKS]} for row in rows]


def asked_arms(adapter: Adapter, config: TradeoffConfig, fitted: Mapping[int, Scorer]) -> list[tuple[str, int, Method]]:
    """(name, seed, method) of what is to be compared."""
    names = config.methods or by_default(adapter, DEFAULT)
    refuse_boxes(names, config.task)
    arms: list[Arm] = [learned(scorer, seed) for seed, scorer in fitted.items()]
    arms += training_free(config.draws, config.seed)
    arms += untrained(adapter, config, fitted) if "saliency-untrained" in names else []
    arms += published([*config.before, *config.inside], config.seed)
    found = [(arm.name, arm.seed, arm.known) for name in names for arm in arms if arm.name == name]
    return [(name, seed, method) for name, seed, method in found if method is not None]


def refuse_boxes(names: Iterable[str], task: str) -> None:
    """Raise ValueError for a method that needs boxes or training."""
    for name in names:
        if name in _ORACLES:
            raise ValueError(f"methods: {name!r} needs boxes or training, which task {task!r} does not have here.")


def _try(asking: GenerateEvaluator, arms: Sequence[tuple[str, int, Method]], keeps: Sequence[float]) -> None:
    """One question with each method at the smallest ratio: what a model can't carry is told of before hours of work."""
    sample, least = asking.groups[0][0], min(keeps)
    if least == 1:
        return
    inputs = asking.inputs(sample.image, [sample.question])
    for method in {name: method for name, _, method in arms}.values():
        with salience.prune(asking.model, method, keep=least, positions=asking.positions):
            asking.model.generate(**inputs, max_new_tokens=1, do_sample=False)


def _look_at_all(task: PictureTask, bars: ProgressBars) -> None:
    """Open every picture once, so that one that is missing or cut off is told of before hours of work."""
    with bars.bar("looking at the pictures", len(task.groups)) as tick:
        for group in task.groups:
            _ = group[0].image
            tick()


def _add_times(
    rows: Sequence[dict[str, Any]],
    asking: GenerateEvaluator,
    config: TradeoffConfig,
    arms: Sequence[tuple[str, int, Method]],
    cache: ResultCache,
    bars: ProgressBars,
) -> None:
    """The columns that a clock around `generate` gives, one measurement for all seeds of a method."""
    methods = {name: method for name, _, method in reversed(arms)}
    with bars.bar("timing", (config.repeats + 1) * len(methods) * len(config.keeps)) as tick:

        def measured() -> list[list[Any]]:
            found = clock(asking, methods, config.keeps, repeats=config.repeats, tick=tick)
            return [[method, keep, columns] for (method, keep), columns in found.items()]

        times = {(method, keep): columns for method, keep, columns in cache.get("costs", measured)}
    for row in rows:
        row.update(times[row["method"], row["keep"]])


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    order = [*ROW_COLUMNS["tradeoff"], *(key for key in values if key not in ROW_COLUMNS["tradeoff"])]
    return {key: values.get(key) for key in order}
