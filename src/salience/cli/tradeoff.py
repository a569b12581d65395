"""`salience tradeoff`: pruning methods x keep ratios on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from salience.cli import options
from salience.cli.loading import LoadedModel, ModelSource, find_vlm, model_option
from salience.cli.results import present, save

if TYPE_CHECKING:
    from salience.lab.data_parallel import ProcessGroup
    from salience.lab.tradeoff.config import TradeoffConfig
    from salience.vlm.scorers.scorer import Scorer

_COUNT, _COUNT_OR_ZERO = click.IntRange(min=1), click.IntRange(min=0)


@click.command()
@model_option()
@click.option(
    "--task",
    default="scenes",
    metavar="NAME",
    help="scenes, easy-vqa, or vqa:PATH, a folder of VQAv2, GQA, TextVQA, POPE, or a table with pictures.",
)
@click.option(
    "--instruction",
    default="",
    show_default=False,
    metavar="TEXT",
    help="Put behind every question of a task but scenes.",
)
@click.option(
    "--methods",
    "--method",
    "methods",
    type=options.method_name,
    multiple=True,
    metavar="NAMES",
    callback=options.comma_list,
    help=f"With commas between them, or repeated; also {options.OWN_METHOD}.  [default: those of `salience study`]",
)
@click.option(
    "--keep",
    "keeps",
    multiple=True,
    metavar="RATIOS",
    callback=options.comma_numbers,
    help="With commas between them, or repeated.  [default: 1,.5,.25,.1,.05,.025]",
)
@click.option(
    "--scorer",
    "scorers",
    multiple=True,
    metavar="DIR",
    help="Scorer for `saliency`; repeatable.  [default: the model's own]",
)
@click.option("--pictures", type=_COUNT, help="Test pictures.  [default: 100]")
@click.option("--questions", type=_COUNT, help="Questions a picture, at most.  [default: 12]")
@click.option(
    "--probe",
    "probe_pictures",
    type=_COUNT_OR_ZERO,
    help="Training pictures of the probe, 0 for no probe.  [default: 300]",
)
@click.option("--samples", "examples", type=_COUNT_OR_ZERO, help="Pictures shown in the report.  [default: 6]")
@click.option(
    "--save-pictures",
    type=_COUNT_OR_ZERO,
    default=0,
    metavar="N",
    help="Draw what each method kept of the first N pictures, as contact sheets in pictures/.",
)
@click.option(
    "--costs/--no-costs", default=True, show_default="yes", help="Whether time, FLOPs and memory are measured."
)
@click.option("--quick", is_flag=True, help="Few pictures and rounds: to see that it works, not to measure.")
@options.shared_options(out="build/tradeoff", writes="report.html, results.json, figures/ and pictures/")
def tradeoff(
    model: str | None,
    task: str,
    instruction: str | None,
    methods: Sequence[str],
    keeps: Sequence[float],
    scorers: Sequence[str],
    pictures: int | None,
    questions: int | None,
    probe_pictures: int | None,
    examples: int | None,
    save_pictures: int,
    costs: bool,
    quick: bool,
    out: Path,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure what each pruning method loses at each ratio, and what it saves in time, FLOPs and memory.

    All tokens (--keep 1) are always measured: they are the reference of every row. A killed run continues where it
    stopped. Under `accelerate launch` several processes, each with its GPU, share the work.

    \b
    Example:
      salience tradeoff --methods saliency,random --keep .25,.1 --out build/tradeoff
      salience tradeoff --model path/to/vlm --task vqa:path/to/textvqa --methods cls-attention,random
      accelerate launch --num_processes 2 -m salience tradeoff --methods divprune,fastv --keep .25,.1
    """
    with options.stdout_for_results(as_json):
        from salience.core.backend import resolve_device
        from salience.lab.data_parallel import process_group
        from salience.lab.tradeoff.config import TradeoffConfig

        base = TradeoffConfig.quick() if quick else TradeoffConfig()
        config = replace(
            base,
            task=task,
            instruction=instruction or "",
            methods=tuple(methods) or None,
            keeps=tuple(keeps) or base.keeps,
            pictures=pictures or base.pictures,
            questions=questions or base.questions,
            probe_pictures=base.probe_pictures if probe_pictures is None else probe_pictures,
            examples=base.examples if examples is None else examples,
            save_pictures=save_pictures,
            costs=costs,
            seed=seed,
        )
        options.require_folder(out)
        fitted = _scorers(scorers)
        group = process_group(resolve_device(device))
        found = find_vlm(model, str(group.device))
        _require_methods(config, found, fitted)
        _require_task(config, found)
        with options.working("loading the model"):
            loaded = found.load()
        _require_fit(loaded, fitted)
        results = _measured(loaded, config, fitted, out, group, quick=quick)
    if results is not None:
        present(results, as_json=as_json)


def _scorers(folders: Sequence[str]) -> Mapping[int, Scorer] | None:
    """Return number -> scorer, or None for those that belong to the model."""
    from salience.vlm.scorers.scorer import Scorer

    return {number: Scorer.from_pretrained(folder) for number, folder in enumerate(folders)} or None


def _require_methods(config: TradeoffConfig, found: ModelSource, scorers: Mapping[int, Scorer] | None) -> None:
    """Raise ValueError for a method that can't be measured, before any weights are loaded."""
    from salience.lab.tradeoff.methods_under_test import require_measurable
    from salience.vlm.methods.budget import Budget
    from salience.vlm.methods.saliency import Saliency

    require_measurable(config.methods or (), config.task, boxes=config.task == "scenes")
    if scorers is None and "saliency" in (config.methods or ()):
        found.require_method("saliency", Budget(keep=1.0), config.seed)
    for scorer in (scorers or {}).values():
        if found.outline is not None:
            Saliency(scorer=scorer).check(d_features=found.outline.d_features)


def _require_task(config: TradeoffConfig, found: ModelSource) -> None:
    """Raise ValueError for unreadable questions and missing pictures, before any weights are loaded.

    Questions with words that the model's vocabulary lacks are reported on stderr.
    """
    from salience.cli.answering import unknown_words
    from salience.lab.evaluate.picture_tasks import picture_task

    if config.task == "scenes":
        return
    task = picture_task(config.task, pictures=config.pictures, questions=config.questions, seed=config.seed)
    processor = found.processor
    unknown: list[tuple[str, str]] = []
    for sample in task.samples:
        for name, text in (("question", sample.question), ("instruction", config.instruction)):
            if processor.image_token in text:
                where = f"{sample.row}: its question" if name == "question" else "--instruction"
                raise ValueError(f"{where} must not contain {processor.image_token}, which stands for the picture.")
            if words := unknown_words(processor.tokenizer, text):
                unknown.append((words[0], sample.row))
    if unknown:
        word, row = unknown[0]
        options.note(
            f"{len(unknown)} questions hold words that the model's vocabulary lacks, such as {word!r} ({row}): it "
            "can't tell such words apart."
        )


def _require_fit(loaded: LoadedModel, scorers: Mapping[int, Scorer] | None) -> None:
    """Raise ValueError for a scorer of another width than the model's features, or of another vision tower."""
    from salience.vlm.families import adapter_for
    from salience.vlm.methods.saliency import Saliency
    from salience.vlm.model_scorer import require_same_tower

    adapter = adapter_for(loaded.model)
    for scorer in (scorers or {}).values():
        Saliency(scorer=scorer).check(d_features=adapter.d_features)
        require_same_tower(Saliency(scorer=scorer), adapter)


def _measured(
    loaded: LoadedModel,
    config: TradeoffConfig,
    scorers: Mapping[int, Scorer] | None,
    out: Path,
    group: ProcessGroup,
    *,
    quick: bool,
) -> Path | None:
    """Run and write results.json. Returns the document's path; None in a process that writes none."""
    from salience.lab.profile.machine_load import Machine
    from salience.lab.tradeoff import run as tradeoff_study

    machine = Machine()
    record = tradeoff_study.run(
        loaded.model, config, processor=loaded.processor, name=loaded.name, out=out, scorers=scorers
    )
    if not group.first:
        return None
    record = replace(record, config={**record.config, "quick": quick})
    return save(record, out, str(loaded.model.device), machine)
