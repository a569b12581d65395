"""Comparison of sequence models under identical training: quality and costs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from salience.core.backend import resolve_device
from salience.core.progress import ProgressBars, progress_bars
from salience.core.record import CompareRecord
from salience.core.result_tables import (
    DivergedRun,
    LengthAccuracy,
    LengthCost,
    ModelDifference,
    ModelResult,
    ShuffledControl,
)
from salience.lab.compare.config import CompareConfig
from salience.lab.compare.costs import measure_lengths, require_memory
from salience.lab.compare.metrics import INTERVAL, TEST, Counts, accuracy_interval, compare_pairs
from salience.lab.compare.process_pool import run_all
from salience.lab.compare.training_run import MLP, Job, Purpose, RunResult
from salience.lab.data.sequences import load
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data_parallel import ProcessGroup, process_group
from salience.lab.result_cache import ResultCache
from salience.lab.train.train_sequence import SSM_LR, WEIGHT_DECAY

#: Model -> the results of its seeds, in order.
Fits = dict[str, list[RunResult]]
#: Model -> learning rate -> validation accuracy, None after a divergence.
Tried = dict[str, dict[str, float | None]]


def compare(
    config: CompareConfig,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    cache: ResultCache | None = None,
    bars: ProgressBars | None = None,
    quiet: bool = False,
) -> CompareRecord:
    """Train every model with every seed.

    All models get the same steps, batches, order, schedule and clipping. With several `rates`, each model's own is
    chosen on the validation split with the first seed; after that the validation examples are trained on too. Processes
    that `accelerate launch` started share every batch of one training run after another. Only the first of them writes
    and times.

    Args:    out: folder for finished runs and checkpoints; None stores nothing. The caller writes the results and then
             removes `.unfinished` there   cache, bars: of a larger study   device: "auto", "cpu", "cuda"...
    Raises:  ValueError, one sentence, for an unknown task or data that can't be read, for a model that the task does
             not allow, and for too little memory
    """
    where = str(resolve_device(device))
    task = load(config.task, seed=config.seed)
    require_memory(config, task, where)
    group = process_group(where)
    if group.count > 1:
        config = replace(config, processes=1, lengths=config.lengths if group.first else ())
    own = cache or _cache(None if out is None else Path(out), config, group)
    drawn = progress_bars(quiet=quiet or not group.first) if bars is None else nullcontext(bars)
    with drawn as shown:
        record = _Comparison(config=config, task=task, device=where, cache=own, bars=shown).record()
    group.wait()  # the caller may remove files that other processes still read
    return record


def _cache(out: Path | None, config: CompareConfig, group: ProcessGroup) -> ResultCache:
    """Return the cache of this run. The first process removes another run's results before the others read."""
    own = ResultCache(out, identity(config), writes=group.first)
    group.wait()
    return own


def identity(config: CompareConfig) -> dict[str, Any]:
    """Return everything besides the code that a stored result depends on: neither the processes nor the timing."""
    left_out = ("processes", "lengths", "rounds")
    return {key: value for key, value in vars(config).items() if key not in left_out} | {"torch": torch.__version__}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Comparison:
    config: CompareConfig
    task: SequenceTask
    device: str
    cache: ResultCache
    bars: ProgressBars

    def record(self) -> CompareRecord:
        config = self.config
        rates, tried = self.choose_rates()
        seeds = range(config.seed, config.seed + config.seeds)
        jobs = [self.job(name, seed, rates[name]) for seed in seeds for name in config.models]
        if config.control:
            jobs += [self.job(name, config.seed, rates[name], "control") for name in config.models]
        found = self.results(jobs)
        fits = {name: [found[job.name] for job in jobs if (job.model, job.purpose) == (name, "fit")] for name in rates}
        controls = [found[job.name] for job in jobs if job.purpose == "control"]
        throughput = self.length_costs() if config.lengths else ()
        return CompareRecord(
            config=_described(config, self.task, fits, tried),
            rows=tuple(row for model in fits.values() for fit in model for row in fit.rows),
            final=tuple(_final(name, model) for name, model in fits.items()),
            tests=_tests(fits, config.seed),
            longer=_longer(fits),
            control=tuple(_control(fit, self.task) for fit in controls if fit.rows),
            throughput=throughput,
            diverged=tuple(
                DivergedRun(model=name, seed=config.seed + at, said=fit.diverged)
                for name, model in fits.items()
                for at, fit in enumerate(model)
                if fit.diverged
            ),
        )

    def job(self, model: str, seed: int, rate: float, purpose: Purpose = "fit") -> Job:
        return Job(config=self.config, model=model, seed=seed, rate=rate, purpose=purpose, device=self.device)

    def results(self, jobs: Sequence[Job]) -> dict[str, RunResult]:
        """Return the result of each job by its name; those that an earlier run finished are read from the cache."""
        left = [replace(job, aside=self.cache.path(f"fit-{job.name}")) for job in jobs if not self.cache.has(job.name)]
        new: dict[str, RunResult] = {}

        def store(job: Job, result: RunResult) -> None:
            self.cache.get(job.name, result.to_json)
            new[job.name] = result

        run_all(left, self.config.processes, self.config.threads, self.bars, store)
        names = [job.name for job in jobs]
        return {n: new[n] if n in new else RunResult.from_json(self.cache.get(n, dict), n) for n in names}

    def choose_rates(self) -> tuple[dict[str, float], Tried]:
        """Return each model's learning rate, and the validation accuracy of every rate that was tried."""
        config = self.config
        if len(config.rates) == 1:
            return dict.fromkeys(config.models, config.rates[0]), {}
        jobs = [self.job(name, config.seed, rate, "search") for name in config.models for rate in config.rates]
        found = self.results(jobs)
        tried: Tried = {name: {} for name in config.models}
        for job in jobs:
            result = found[job.name]
            tried[job.model][f"{job.rate:g}"] = None if result.diverged else result.rows[-1].test_accuracy
        best = {}
        for name, accuracies in tried.items():
            known = {float(rate): value for rate, value in accuracies.items() if value is not None}
            best[name] = max(known, key=lambda rate: known[rate]) if known else config.rates[0]
        return best, tried

    def length_costs(self) -> tuple[LengthCost, ...]:
        """Time and memory against length, measured or from the cache."""
        config = self.config
        name = f"{config.task.replace('/', '_')}-lengths-{'-'.join(map(str, config.lengths))}-{config.rounds}"
        found = self.cache.get(
            name, lambda: [cost.to_json() for cost in measure_lengths(config, self.task, self.device, self.bars)]
        )
        return tuple(LengthCost.from_json(cost, name) for cost in found)


def _final(name: str, fits: Sequence[RunResult]) -> ModelResult:
    """A model's last epoch: the mean over its seeds, and an interval that contains every seed."""
    ended = [fit for fit in fits if fit.right is not None]
    first = fits[0]
    result = ModelResult(
        model=name, pattern=first.pattern, d_model=first.d_model, n_layers=first.n_layers, forwards=first.forwards,
        rate=first.rate, seeds=len(ended), diverged=len(fits) - len(ended),
    )  # fmt: skip
    if not ended:
        return result
    rows = [fit.rows[-1] for fit in ended]
    accuracies = [float(row.test_accuracy or 0.0) for row in rows]
    low, high = accuracy_interval(_right(ended), np.asarray(ended[0].asked))
    return replace(
        result,
        accuracy=float(np.mean(accuracies)),
        accuracy_low=min(low, *accuracies),
        accuracy_high=max(high, *accuracies),
        parameters=rows[0].parameters,
        train_tokens_per_s=float(np.median([row.train_tokens_per_s or 0.0 for row in rows])),
    )


def _right(fits: Sequence[RunResult]) -> Counts:
    """(runs, examples): correct targets of the runs that ended."""
    return np.asarray([fit.right for fit in fits if fit.right is not None], dtype=np.int64)


def _tests(fits: Fits, seed: int) -> tuple[ModelDifference, ...]:
    right = {name: _right(model) for name, model in fits.items() if any(fit.right is not None for fit in model)}
    asked = next((fit.asked for model in fits.values() for fit in model if fit.asked is not None), ())
    return compare_pairs(right, np.asarray(asked), seed=seed)


def _longer(fits: Fits) -> tuple[LengthAccuracy, ...]:
    """Accuracy by length beyond the training's: mean and range over seeds."""
    found = []
    for name, model in fits.items():
        for length in dict.fromkeys(length for fit in model for length in fit.longer):
            values = [fit.longer[length] for fit in model if length in fit.longer]
            found.append(
                LengthAccuracy(
                    model=name, length=int(length), accuracy=float(np.mean(values)), accuracy_low=min(values),
                    accuracy_high=max(values), seeds=len(values),
                )
            )  # fmt: skip
    return tuple(found)


def _control(fit: RunResult, task: SequenceTask) -> ShuffledControl:
    last = fit.rows[-1]
    return ShuffledControl(
        model=last.model, seed=last.seed, epoch=last.epoch, accuracy=last.test_accuracy,
        accuracy_low=last.accuracy_low, accuracy_high=last.accuracy_high, majority=task.majority,
    )  # fmt: skip


def _described(config: CompareConfig, task: SequenceTask, fits: Fits, tried: Tried) -> dict[str, Any]:
    """Return the record's config."""
    return {
        "task": task.name, "length": task.length, "majority_accuracy": task.majority, "chance_accuracy": task.chance,
        "task_kind": task.kind, "metric": task.metric, "source": task.source, "licence": task.licence,
        "credit": task.credit, "train_examples": len(task.with_val_in_train().train), "test_examples": len(task.test),
        "models": list(fits), "seeds": config.seeds, "seed": config.seed, "epochs": config.epochs,
        "batch": config.batch, "rates": {name: model[0].rate for name, model in fits.items()},
        "rates_tried": list(config.rates), "validation_accuracies": tried, "ssm_lr": SSM_LR,
        "weight_decay": WEIGHT_DECAY, "precision": "float32", "mlp": MLP, "dropout": 0.0,
        "parameters_target": config.parameters or None, "processes": config.processes,
        "threads": config.threads or torch.get_num_threads(), "test": TEST, "interval": INTERVAL,
    }  # fmt: skip
