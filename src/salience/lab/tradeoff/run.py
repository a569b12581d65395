"""Trade-off: pruning methods at keep ratios, with seeds, on one vision-language model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from salience.core.progress import ProgressBars, progress_bars
from salience.core.record import TradeoffRecord
from salience.lab.data_parallel import process_group
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.evaluator import AnswerSettings
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.packed_evaluator import evaluator_for
from salience.lab.evaluate.packing import can_pack
from salience.lab.evaluate.picture_tasks import QUESTION_ONLY, PictureTask, picture_task
from salience.lab.evaluate.ranking import works_inside
from salience.lab.fit.fit_scorer import scorers_for
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff.config import SHUFFLED, TradeoffConfig
from salience.lab.tradeoff.contact_sheets import save_contact_sheets
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.controls import full_accuracy, other_picture
from salience.lab.tradeoff.costs import costs
from salience.lab.tradeoff.definitions import definitions
from salience.lab.tradeoff.encoded_task import EncodedTask, encode_task
from salience.lab.tradeoff.examples import examples
from salience.lab.tradeoff.measurements import ALL, measure
from salience.lab.tradeoff.methods_under_test import methods_under_test, require_carried
from salience.lab.tradeoff.paired_differences import blind_differences, differences, kind_differences
from salience.lab.tradeoff.rows import mean, paired_marks, tradeoff_rows
from salience.vlm.families import adapter_for
from salience.vlm.methods.saliency import Saliency
from salience.vlm.model_scorer import require_same_tower
from salience.vlm.scorers.scorer import Scorer
from salience.vlm.tower.fingerprint import tower_fingerprint

#: Limit of an answer to the questions about scenes: the longest answer takes two tokens and the end.
SCENES_TOKENS = 4


def run(
    model: Any,
    config: TradeoffConfig,
    *,
    processor: Any,
    name: str | None = None,
    out: str | Path | None = None,
    scorers: Mapping[int, Scorer] | None = None,
    shuffled: Scorer | None = None,
    train: EncodedPictures | None = None,
    cache: ResultCache | None = None,
    bars: ProgressBars | None = None,
    quiet: bool = False,
) -> TradeoffRecord:
    """Measure every method at every ratio.

    Processes that `accelerate launch` started share the questions through the files in `out`. The first of them alone
    measures times, while the others wait, and all return the same record.

    Args:    model, processor: a transformers VLM of a known family, left as it is   name: of the model in the record
             out: folder of the samples' pictures, and of finished results while the run lasts; None stores nothing
             scorers: seed -> scorer; None for those that belong to the model
             shuffled: a scorer fitted to shuffled targets, a control
             train: training pictures already encoded, for the probe   cache, bars: of a larger study
    Raises:  ValueError for a model of no known family, for a method that can't be measured on it, for a scorer that was
             trained on another vision tower, and for a picture that can't be read, naming its row
    """
    adapter = adapter_for(model)
    folder = None if out is None else Path(out)
    fitted = dict(scorers_for(adapter) if scorers is None else scorers)
    under_test = [*fitted.items(), *([] if shuffled is None else [(SHUFFLED, shuffled)])]
    for _, scorer in under_test:
        require_same_tower(Saliency(scorer=scorer), adapter)
    group = process_group(adapter.device)
    identity = {
        "config": asdict(config),
        "model": tower_fingerprint(model),
        "scorers": [[key, tower_fingerprint(own)] for key, own in under_test],
        "torch": torch.__version__,
    }
    with contextlib.ExitStack() as stack:
        context = RunContext(
            adapter=adapter,
            processor=processor,
            name=name or str(getattr(model, "name_or_path", "") or type(model).__name__),
            config=config,
            cache=cache or ResultCache(folder, identity, group=group),
            bars=bars or stack.enter_context(progress_bars(quiet=quiet or not group.first)),
            out=folder,
            scorers=fitted,
            shuffled=shuffled,
        )
        record = _record(context, train)
    group.wait()  # the caller may remove files that the other processes still read
    return record


def _record(context: RunContext, train: EncodedPictures | None) -> TradeoffRecord:
    config = context.config
    task = picture_task(config.task, pictures=config.pictures, questions=config.questions, seed=config.seed)
    boxes = task.has_boxes and can_pack(context.adapter)
    settings = AnswerSettings(instruction=config.instruction, positions=config.positions)
    if boxes:
        settings = AnswerSettings(positions=config.positions, max_new_tokens=SCENES_TOKENS)
    methods = methods_under_test(context, task, boxes=boxes)
    _open_pictures(context, task)
    generate = GenerateEvaluator(context.adapter.model, context.processor, task.groups, settings)
    substitute = require_carried(generate, methods, min(config.keeps))
    encoded = encode_task(context, task, train) if boxes else None
    test = None if encoded is None else encoded.test
    cost = costs(context, generate, test, methods) if config.costs else {}
    evaluator = evaluator_for(context.adapter, context.processor, task.groups, settings, encoded=test)
    found = measure(context, evaluator, encoded, methods)
    rows = tradeoff_rows(task, methods, config.keeps, found, cost)
    marks = paired_marks(methods, config.keeps, found)
    about = {
        "model": context.name,
        "task": config.task,
        "layout": task.layout,
        "n_pictures": len(task.groups),
        "n_questions": len(task.samples),
        "n_visual_tokens": mean(found[ALL].answers.tokens),
        "keeps": list(config.keeps),
        "seed": config.seed,
        "positions": config.positions,
        "instruction": settings.instruction,
        "methods": list(dict.fromkeys(method.name for method in methods)),
        **task.baselines,
        "definitions": definitions(
            encoded=encoded is not None, inside=any(works_inside(type(one.method)) for one in methods)
        ),
        "scorers": {str(seed): dict(scorer.config.training or {}) for seed, scorer in context.scorers.items()},
        "timing_repeats": config.repeats if config.costs else 0,
        "timed_batch": 1,
        "control_other_picture_accuracy": None,
        "substitute": substitute,
        "pictures_saved": context.cache.get("pictures", lambda: save_contact_sheets(context, generate, methods)),
    }
    return TradeoffRecord(
        config={**about, "full_accuracy": rows[0].accuracy, **_about_encoded(context, task, encoded)},
        rows=tuple(rows),
        differences=tuple(differences(marks, task.picture)),
        blind_differences=tuple(blind_differences(marks, task.picture, task.blind)),
        kind_differences=tuple(kind_differences(marks, task.picture, task.kinds)),
        examples=() if encoded is None else examples(context, generate, encoded, methods),
    )


def _about_encoded(context: RunContext, task: PictureTask, encoded: EncodedTask | None) -> dict[str, Any]:
    """The part of the record's config that only encoded pictures give."""
    if encoded is None:
        return {}
    config, grid = context.config, encoded.test.pictures.grid

    def control() -> dict[str, float] | None:
        blind = task.blind[QUESTION_ONLY]
        return other_picture(encoded.test, config.control_pictures, config.control_shifts, blind)

    with context.bars.bar("control: other pictures", 1) as tick:
        other = context.cache.get("other-picture", control)
        tick()
    return {
        "grid": [grid.rows, grid.columns],
        "probe_pictures": 0 if encoded.train is None else len(encoded.train),
        "probe_majority_accuracy": encoded.probe_majority,
        "ceiling_pictures": min(config.ceiling_pictures, len(encoded.test)),
        "ceiling_full_accuracy": full_accuracy(encoded.test, config.ceiling_pictures),
        "control_other_picture_accuracy": None if other is None else other["accuracy"],
        "control_other_picture": other,
    }


def _open_pictures(context: RunContext, task: PictureTask) -> None:
    """Open every picture once, so that a missing or damaged one is reported before hours of work."""
    with context.bars.bar("opening the pictures", len(task.groups)) as tick:
        for group in task.groups:
            _ = group[0].image
            tick()
