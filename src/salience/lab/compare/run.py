"""The comparison: sequence models under identical training, what they reach and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from salience.core.backend import resolve_device
from salience.core.progress import ProgressBars, progress_bars
from salience.core.record import Record
from salience.lab.compare.config import CompareConfig
from salience.lab.compare.lengths import measure_lengths
from salience.lab.compare.memory_estimate import require_memory
from salience.lab.compare.paired import INTERVAL, TEST, accuracy_interval, compare_pairs
from salience.lab.compare.process_pool import run_all
from salience.lab.compare.training_run import Job, Purpose, counts, with_aside
from salience.lab.data.sequences import load
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data_parallel import ProcessGroup, process_group
from salience.lab.result_cache import ResultCache

Results = dict[str, dict[str, Any]]


def compare(
    config: CompareConfig,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    cache: ResultCache | None = None,
    bars: ProgressBars | None = None,
    quiet: bool = False,
) -> Record:
    """Train every model with every seed; returns a record of kind "compare".

    All get the same steps, batches, order, schedule and clipping. Where `rates` has several, each model's is chosen on
    the validation split with the first seed; then the validation examples are trained on too. Processes that
    `accelerate launch` started share every batch of one fit after another; the first of them alone writes and times.

    Args:    out: where finished fits and checkpoints lie while the run lasts; None stores nothing. The caller writes
             the results and then removes `.unfinished` there   cache, bars: a larger study's own
             device: "auto", "cpu", "cuda"...
    Raises:  ValueError, one sentence, for an unknown task or data that can't be read, for a model that the task's kind
             forbids, and where memory would not do
    """
    where = str(resolve_device(device))
    task = load(config.task, seed=config.seed)
    require_memory(config, task, where)
    group = process_group(where)
    if group.count > 1:
        config = replace(config, processes=1, lengths=config.lengths if group.first else ())
    own = cache or _cache(None if out is None else Path(out), config, group)
    if bars is not None:
        record = _compare(config, task, where, own, bars)
    else:
        with progress_bars(quiet=quiet or not group.first) as drawn:
            record = _compare(config, task, where, own, drawn)
    group.wait()  # the caller may remove what the others still read
    return record


def _cache(out: Path | None, config: CompareConfig, group: ProcessGroup) -> ResultCache:
    """Return the cache of this run; the first process removes another run's results before the others look."""
    own = ResultCache(out, identity(config), writes=group.first)
    group.wait()
    return own


def identity(config: CompareConfig) -> dict[str, Any]:
    """What a stored fit depends on besides the code."""
    return {"compare": config.budget, "models": config.models, "torch": torch.__version__}


def _compare(config: CompareConfig, task: SequenceTask, device: str, cache: ResultCache, bars: ProgressBars) -> Record:
    rates, searched = _rates(config, device, cache, bars)
    seeds = range(config.seed, config.seed + config.seeds)
    jobs = [_job(config, device, name, seed, rates[name]) for seed in seeds for name in config.models]
    if config.control:
        jobs += [_job(config, device, name, config.seed, rates[name], "control") for name in config.models]
    found = _finished(jobs, config, cache, bars)
    fits = {name: [found[job.name] for job in jobs if (job.model, job.purpose) == (name, "fit")] for name in rates}
    control = [found[job.name] for job in jobs if job.purpose == "control"]
    lengths = _lengths(config, task, device, cache, bars) if config.lengths else []
    return {
        "kind": "compare",
        "config": _about(config, task, fits, searched),
        "rows": [row for model in fits.values() for fit in model for row in fit["rows"]],
        "final": [_final(name, model) for name, model in fits.items()],
        "tests": _tests(fits, config.seed),
        "longer": _longer(fits),
        "control": [_control(fit, task) for fit in control if fit["rows"]],
        "throughput": lengths,
        "diverged": [
            {"model": name, "seed": config.seed + at, "said": fit["diverged"]}
            for name, model in fits.items()
            for at, fit in enumerate(model)
            if fit["diverged"]
        ],
    }


def _lengths(
    config: CompareConfig, task: SequenceTask, device: str, cache: ResultCache, bars: ProgressBars
) -> list[dict[str, Any]]:
    """What was timed, or what a run before this one timed at the same lengths."""
    name = f"{config.task.replace('/', '_')}-lengths-{'-'.join(map(str, config.lengths))}-{config.rounds}"
    found: list[dict[str, Any]] = cache.get(name, lambda: measure_lengths(config, task, device, bars))
    return found


def _job(
    config: CompareConfig, device: str, model: str, seed: int, rate: float, purpose: Purpose = "fit"
) -> Job:  # fmt: skip
    return Job(config=config, model=model, seed=seed, rate=rate, purpose=purpose, device=device)


def _finished(jobs: Sequence[Job], config: CompareConfig, cache: ResultCache, bars: ProgressBars) -> Results:
    """What came of each job, by its name; what a run before this one finished is read back."""
    found: Results = {}
    open_jobs = []
    for job in jobs:
        if cache.has(job.name):
            found[job.name] = cache.get(job.name, dict)
        else:
            open_jobs.append(with_aside(job, cache.path(f"fit-{job.name}")))

    def done(job: Job, result: dict[str, Any]) -> None:
        found[job.name] = cache.get(job.name, lambda: result)

    run_all(open_jobs, config.processes, config.threads, bars, done)
    return found


def _rates(
    config: CompareConfig, device: str, cache: ResultCache, bars: ProgressBars
) -> tuple[dict[str, float], dict[str, dict[str, float | None]]]:
    """Each model's learning rate, and the validation accuracy of every one that was tried."""
    if len(config.rates) == 1:
        return dict.fromkeys(config.models, config.rates[0]), {}
    jobs = [
        _job(config, device, name, config.seed, rate, "search") for name in config.models for rate in config.rates
    ]  # fmt: skip
    found = _finished(jobs, config, cache, bars)
    tried: dict[str, dict[str, float | None]] = {name: {} for name in config.models}
    for job in jobs:
        result = found[job.name]
        tried[job.model][f"{job.rate:g}"] = None if result["diverged"] else result["rows"][-1]["test_accuracy"]
    best = {}
    for name, accuracies in tried.items():
        known = {float(rate): value for rate, value in accuracies.items() if value is not None}
        best[name] = max(known, key=lambda rate: known[rate]) if known else config.rates[0]
    return best, tried


def _final(name: str, fits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A model's last epoch over its seeds: the mean, and an interval that holds every seed."""
    ended = [fit for fit in fits if fit["right"] is not None]
    rows = [fit["rows"][-1] for fit in ended]
    accuracies = [row["test_accuracy"] for row in rows]
    about = fits[0]
    line = {
        "model": name, "pattern": about["pattern"], "d_model": about["d_model"], "n_layers": about["n_layers"],
        "forwards": about["forwards"], "rate": about["rate"], "seeds": len(ended), "diverged": len(fits) - len(ended),
        "accuracy": None, "accuracy_low": None, "accuracy_high": None, "parameters": None, "train_tokens_per_s": None,
    }  # fmt: skip
    if not ended:
        return line
    low, high = accuracy_interval(counts(ended), np.asarray(ended[0]["asked"]))
    return line | {
        "accuracy": float(np.mean(accuracies)), "accuracy_low": min(low, *accuracies),
        "accuracy_high": max(high, *accuracies), "parameters": rows[0]["parameters"],
        "train_tokens_per_s": float(np.median([row["train_tokens_per_s"] for row in rows])),
    }  # fmt: skip


def _tests(fits: dict[str, list[dict[str, Any]]], seed: int) -> list[dict[str, Any]]:
    right = {name: counts(model) for name, model in fits.items() if any(fit["right"] is not None for fit in model)}
    if len(right) < 2:
        return []
    asked = next(fit["asked"] for model in fits.values() for fit in model if fit["asked"] is not None)
    return compare_pairs(right, np.asarray(asked), seed=seed)


def _longer(fits: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Accuracy by length beyond the training's, mean over seeds with their range."""
    found = []
    for name, model in fits.items():
        for length in dict.fromkeys(length for fit in model for length in fit["longer"]):
            values = [fit["longer"][length] for fit in model if length in fit["longer"]]
            found.append({
                "model": name, "length": int(length), "accuracy": float(np.mean(values)), "accuracy_low": min(values),
                "accuracy_high": max(values), "seeds": len(values),
            })  # fmt: skip
    return found


def _control(fit: dict[str, Any], task: SequenceTask) -> dict[str, Any]:
    last = fit["rows"][-1]
    return {
        "model": last["model"], "seed": last["seed"], "epoch": last["epoch"], "accuracy": last["test_accuracy"],
        "accuracy_low": last["accuracy_low"], "accuracy_high": last["accuracy_high"], "majority": task.majority,
    }  # fmt: skip


def _about(
    config: CompareConfig, task: SequenceTask, fits: dict[str, list[dict[str, Any]]], searched: dict[str, Any]
) -> dict[str, Any]:
    """The record's config."""
    return {
        "task": task.name, "length": task.length, "majority_accuracy": task.majority, "chance_accuracy": task.chance,
        "task_kind": task.kind, "metric": task.metric, "source": task.source, "licence": task.licence,
        "credit": task.credit, "train_examples": len(task.with_val_in_train().train), "test_examples": len(task.test),
        "models": list(fits), "seeds": config.seeds, "seed": config.seed, "epochs": config.epochs,
        "batch": config.batch, "rates": {name: model[0]["rate"] for name, model in fits.items()},
        "rates_tried": list(config.rates), "validation_accuracies": searched, "ssm_lr": config.ssm_lr,
        "weight_decay": config.weight_decay, "precision": config.precision, "mlp": config.mlp,
        "dropout": config.dropout, "parameters_target": config.parameters or None, "processes": config.processes,
        "threads": config.threads or torch.get_num_threads(), "test": TEST, "interval": INTERVAL,
    }  # fmt: skip
