"""The trade-off: pruning methods x keep ratios x seeds on one vision-language model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from salience.core.progress import ProgressBars, progress_bars
from salience.core.record import Record
from salience.lab.data.scenes import baselines, question_only
from salience.lab.data_parallel import process_group
from salience.lab.evaluate.encoded_pictures import EncodedPictures, adapter_dtype, encode_pictures, load_pictures
from salience.lab.evaluate.packing import can_pack
from salience.lab.evaluate.picture_tasks import blind_scenes, picture_task
from salience.lab.fit.fitted_scorers import scorers_for
from salience.lab.result_cache import ResultCache
from salience.lab.tradeoff.config import KEEPS, STUDY, TradeoffConfig, reads_keys
from salience.lab.tradeoff.contact_sheets import save_for
from salience.lab.tradeoff.costs import Case
from salience.lab.tradeoff.differences import MARKS, blind_differences, differences, kind_differences
from salience.lab.tradeoff.examples import choose, for_one, make_examples
from salience.lab.tradeoff.generate_run import asked_arms, inside_rows, run_asked
from salience.lab.tradeoff.in_llm_costs import DEFINITION as INSIDE_COSTS
from salience.lab.tradeoff.in_llm_costs import measure_costs, rounds
from salience.lab.tradeoff.methods_under_test import (
    Arm,
    admit,
    by_default,
    learned,
    oracle,
    oracle_method,
    published,
    training_free,
    untrained,
)  # fmt: skip
from salience.lab.tradeoff.quality import DEFINITIONS, Quality
from salience.lab.tradeoff.rows import all_rows
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.methods import method_class
from salience.vlm.methods.saliency import Saliency
from salience.vlm.same_tower import require_same_tower
from salience.vlm.scorers.scorer import Scorer
from salience.vlm.tower.fingerprint import tower_fingerprint

__all__ = ["KEEPS", "TradeoffConfig", "run"]

_NO_SCORER = (
    "methods name 'saliency', but there is no scorer made for exactly this model: train one with `salience fit`, or "
    "leave it out."
)
SHUFFLED = "saliency-shuffled"
_NO_CONTROL = f"methods name {SHUFFLED!r}, a scorer fitted to shuffled targets, which only `salience study` makes."


def run(
    model: Any,
    config: TradeoffConfig,
    *,
    processor: Any,
    name: str | None = None,
    out: str | Path | None = None,
    scorers: Mapping[int, Scorer] | None = None,
    controls: Mapping[str, Scorer] | None = None,
    train: EncodedPictures | None = None,
    cache: ResultCache | None = None,
    bars: ProgressBars | None = None,
    quiet: bool = False,
) -> Record:
    """Measure every method at every ratio; returns a record of kind "tradeoff".

    Processes that `accelerate launch` started share what is to be asked through the files in `out`; the first of them
    alone measures times, while the others wait, and all return the same record.

    Args:    model, processor: a transformers VLM of a known family, left as it is   name: what the record calls it
             out: where samples' pictures go, and finished cache while the run lasts; None stores nothing
             scorers: seed -> scorer; None for those that belong to the model   controls: method name -> scorer
             train: training pictures already encoded, for the probe   cache, bars: a larger study's own
    Raises:  ValueError for a model of no known family, when a scorer is asked for and there is none, or for one that
             was trained on another vision tower
    """
    adapter = adapter_for(model)
    folder = None if out is None else Path(out)
    fitted = dict(scorers_for(adapter) if scorers is None else scorers)
    for scorer in (*fitted.values(), *(controls or {}).values()):
        require_same_tower(Saliency(scorer=scorer), adapter)
    if config.methods is not None and "saliency" in config.methods and not fitted:
        raise ValueError(_NO_SCORER)
    refuse_control(config.methods or (), controls or ())
    group = process_group(adapter.device)
    own = cache or ResultCache(folder, _identity(adapter, config, fitted, controls or {}), group=group)
    if bars is not None:
        record = _run(adapter, processor, config, name, folder, fitted, controls or {}, train, own, bars)
    else:
        with progress_bars(quiet=quiet or not group.first) as drawn:
            record = _run(adapter, processor, config, name, folder, fitted, controls or {}, train, own, drawn)
    group.wait()  # the caller may remove what the others still read
    return record


def refuse_control(methods: Collection[str], controls: Collection[str]) -> None:
    """Raise ValueError where the control is named and there is none."""
    if SHUFFLED in methods and SHUFFLED not in controls:
        raise ValueError(_NO_CONTROL)


def _run(
    adapter: Adapter,
    processor: Any,
    config: TradeoffConfig,
    name: str | None,
    out: Path | None,
    fitted: Mapping[int, Scorer],
    controls: Mapping[str, Scorer],
    train: EncodedPictures | None,
    cache: ResultCache,
    bars: ProgressBars,
) -> Record:
    shown = name or str(getattr(adapter.model, "name_or_path", "") or type(adapter.model).__name__)
    if config.task != "scenes" or not can_pack(adapter):
        record = run_asked(adapter, processor, config, name=shown, fitted=fitted, cache=cache, bars=bars)
        return _with_sheets(record, adapter, processor, config, fitted, out, cache, bars)
    arms = _arms(adapter, config, fitted, controls)
    tried = {arm.name: arm.known for arm in (*arms, *published(config.inside, config.seed)) if arm.known is not None}
    substitute = admit(adapter, tried.values(), min(config.keeps), positions=config.positions)
    test = _encoded(adapter, processor, config, "test", config.pictures, bars)
    if train is None and config.probe_pictures > 0:
        train = _encoded(adapter, processor, config, "train", config.probe_pictures, bars)
    costs = _costs(adapter, processor, config, test, arms, cache, bars) if config.costs else {}
    with bars.bar("all tokens", 1) as tick:
        quality = Quality(adapter, test, train, positions=config.positions)
        whole = cache.get("whole", quality.whole)
        tick()
    rows = all_rows(quality, config, arms, whole, costs, cache, bars)
    rows += inside_rows(adapter, processor, config, test.samples, whole, costs, cache, bars)
    asked = [sample for group in quality.test.samples for sample in group]
    apart = differences(rows, quality.full.picture)
    without = blind_differences(rows, quality.full.picture, blind_scenes(asked))
    by_kind = kind_differences(rows, quality.full.picture, quality.kinds)
    rows = [{name: value for name, value in row.items() if name != MARKS} for row in rows]
    with bars.bar("samples and controls", 2) as tick:
        examples = cache.get("examples", lambda: _examples(quality, processor, config, arms, out))
        tick()
        other = cache.get("other-picture", lambda: _other_picture(quality, config))
        tick()
    about = {
        "model": shown,
        **_about(config, quality, fitted, whole),
        "methods": list(dict.fromkeys(row["method"] for row in rows)),
        "control_other_picture_accuracy": None if other is None else other["accuracy"],
        "control_other_picture": other,
        "substitute": substitute,
        "pictures_saved": cache.get(
            "pictures", lambda: _save_pictures(adapter, processor, config, test, arms, out, bars)
        ),
    }
    return {
        "kind": "tradeoff", "config": about, "rows": rows, "differences": apart,
        "blind_differences": without, "kind_differences": by_kind, "examples": examples,
    }  # fmt: skip


def _encoded(
    adapter: Adapter, processor: Any, config: TradeoffConfig, split: str, pictures: int, bars: ProgressBars
) -> EncodedPictures:
    groups = load_pictures(config.task, split=split, pictures=pictures, questions=config.questions, seed=config.seed)
    with bars.bar(f"encoding {split} pictures", pictures) as tick:
        return encode_pictures(adapter, processor, groups, keys=reads_keys(config), tick=tick)


def _arms(
    adapter: Adapter, config: TradeoffConfig, fitted: Mapping[int, Scorer], controls: Mapping[str, Scorer]
) -> list[Arm]:
    """The methods that are asked for, the study's own first."""
    arms = [learned(scorer, seed) for seed, scorer in fitted.items()]
    arms += training_free(config.draws, config.seed)
    arms += published(config.before, config.seed)
    arms.append(oracle(config.seed))
    arms += [learned(scorer, config.seed, name=name) for name, scorer in controls.items()]
    if fitted or "saliency-untrained" in (config.methods or ()):
        arms += untrained(adapter, config, fitted)
    names = config.methods or by_default(adapter, STUDY)
    return [arm for arm in arms if arm.name in names]


def _costs(
    adapter: Adapter,
    processor: Any,
    config: TradeoffConfig,
    test: EncodedPictures,
    arms: Sequence[Arm],
    cache: ResultCache,
    bars: ProgressBars,
) -> dict[tuple[str, float], dict[str, Any]]:
    """Cost columns by (cost name, ratio), measured on the first test picture's first question."""
    first, case, device = _case(adapter, processor, test)
    methods = {arm.cost: arm.method(first).to(device) for arm in arms}
    if config.wants("oracle-question"):
        methods.setdefault("oracle", oracle_method(first))
    inside = {name: method_class(name)().to(device) for name in config.inside}
    keeps, repeats = config.keeps, config.repeats
    with bars.bar("timing", rounds(len(methods), len(inside), len(keeps), repeats)) as tick:

        def measured() -> list[list[Any]]:
            found = measure_costs(adapter, case, methods, inside, keeps, repeats=repeats, tick=tick)
            return [[method, keep, columns] for (method, keep), columns in found.items()]

        return {(method, keep): columns for method, keep, columns in cache.get("costs", measured)}


def _case(adapter: Adapter, processor: Any, test: EncodedPictures) -> tuple[EncodedPictures, Case, torch.device]:
    """The first test picture, it and its first question as what is timed, and where."""
    first = test.first(1)
    device = test.features.device
    pixels = processor.image_processor([first.samples[0][0].image], return_tensors="pt")["pixel_values"]
    return first, Case(pixels=pixels.to(device, adapter_dtype(adapter)), prompt=first.prompts[0][0]), device


def _examples(
    quality: Quality, processor: Any, config: TradeoffConfig, arms: Sequence[Arm], out: Path | None
) -> list[dict[str, Any]]:
    pruned = [keep for keep in config.keeps if keep < 1]
    shown = {arm.name: arm for arm in reversed(arms) if arm.name in ("saliency", "random", "cls-attention")}
    if not shown or not pruned or config.examples < 1:
        return []
    subject = shown.get("saliency") or next(iter(shown.values()))
    ordered = [shown[name] for name in STUDY if name in shown]
    chosen = choose(quality, subject, pruned, config.examples)
    return make_examples(quality, processor, chosen, ordered, pruned, out)


def _with_sheets(
    record: Record,
    adapter: Adapter,
    processor: Any,
    config: TradeoffConfig,
    fitted: Mapping[int, Scorer],
    out: Path | None,
    cache: ResultCache,
    bars: ProgressBars,
) -> Record:
    """A record of `run_asked` with the contact sheets that are asked for."""
    if config.save_pictures and out is not None:
        groups = picture_task(config).groups[: config.save_pictures]
        arms = reversed(asked_arms(adapter, config, fitted))
        known = {name: [method] * len(groups) for name, _, method in arms}
        record["config"]["pictures_saved"] = cache.get(
            "pictures", lambda: save_for(adapter.model, processor, config, groups, known, out, bars)
        )
    return record


def _save_pictures(
    adapter: Adapter,
    processor: Any,
    config: TradeoffConfig,
    test: EncodedPictures,
    arms: Sequence[Arm],
    out: Path | None,
    bars: ProgressBars,
) -> list[str]:
    """Contact sheets with each method's first seed."""
    chosen = {arm.name: arm.method(test) for arm in reversed(arms)}
    shown = range(min(len(test), config.save_pictures))
    ordered = [name for name in dict.fromkeys((*STUDY, *config.before)) if name in chosen]
    known = {name: [for_one(chosen[name], picture) for picture in shown] for name in ordered}
    return save_for(adapter.model, processor, config, test.samples, known, out, bars)


def _other_picture(quality: Quality, config: TradeoffConfig) -> dict[str, float] | None:
    blind = question_only([sample for group in quality.test.samples for sample in group])
    return quality.other_picture(config.control_pictures, config.control_shifts, blind)


def _about(
    config: TradeoffConfig, quality: Quality, fitted: Mapping[int, Scorer], whole: Mapping[str, Any]
) -> dict[str, Any]:
    """The record's config."""
    samples = [sample for group in quality.test.samples for sample in group]
    blind = baselines(samples)
    return {
        "task": config.task,
        "n_pictures": len(quality.test),
        "n_questions": len(samples),
        "n_visual_tokens": quality.test.grid.n,
        "grid": [quality.test.grid.rows, quality.test.grid.columns],
        "keeps": list(config.keeps),
        "seed": config.seed,
        "positions": config.positions,
        "full_accuracy": whole["accuracy"],
        "majority_accuracy": blind["majority"]["all"],
        "question_only_accuracy": blind["question_only"]["all"],
        "majority_by_kind": {kind: share for kind, share in blind["majority"].items() if kind != "all"},
        "question_only_by_kind": {kind: share for kind, share in blind["question_only"].items() if kind != "all"},
        "probe_pictures": 0 if quality.train is None else len(quality.train),
        "probe_majority_accuracy": quality.probe_majority(),
        "ceiling_pictures": min(config.ceiling_pictures, len(quality.test)),
        "ceiling_full_accuracy": quality.full_accuracy(config.ceiling_pictures),
        "definitions": {**DEFINITIONS, **({"select_ms, flops_scorer": INSIDE_COSTS} if config.inside else {})},
        "scorers": {str(seed): dict(scorer.config.training or {}) for seed, scorer in fitted.items()},
        "timing_repeats": config.repeats if config.costs else 0,
        "timed_batch": 1,
    }


def _identity(
    adapter: Adapter, config: TradeoffConfig, fitted: Mapping[int, Scorer], controls: Mapping[str, Scorer]
) -> dict[str, Any]:
    """What a stored cell depends on besides the code."""
    return {
        "config": asdict(config),
        "model": tower_fingerprint(adapter.model),
        "scorers": [[key, tower_fingerprint(scorer)] for key, scorer in (*fitted.items(), *controls.items())],
        "torch": torch.__version__,
    }
