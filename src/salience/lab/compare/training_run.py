"""One fit of a comparison: one model, one seed, the budget that all have."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from salience.core.progress import ProgressBars
from salience.lab.compare.config import CompareConfig, Model, read_model
from salience.lab.compare.paired import accuracy_interval
from salience.lab.data.sequences import load
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.train.sequence_loss import evaluate
from salience.lab.train.train_sequence import SequenceFitConfig, fit_sequence

Purpose = Literal["fit", "search", "control"]
_EVALUATED = 128 * 1024  # steps of sequences in one batch of an evaluation


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is fitted. purpose: "search" trains without the validation split and is scored on it; "control" trains on
    shuffled labels   aside: where the fit's checkpoints go"""

    config: CompareConfig
    model: str
    seed: int
    rate: float
    purpose: Purpose = "fit"
    aside: Path | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Apart from every other job's of the comparison, and fit for a file's name."""
        kind = {"fit": "", "search": f"-rate-{self.rate:g}", "control": "-shuffled"}[self.purpose]
        return f"{self.config.task}-{self.model}-{self.seed}{kind}".replace("/", "_").replace(":", "_")

    @property
    def label(self) -> str:
        """In front of its progress bar."""
        kind = {"fit": f"seed {self.seed}", "search": f"rate {self.rate:g}", "control": "shuffled labels"}[self.purpose]
        return f"{self.model}, {kind}"

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        task = task_of(self)
        return -(-len(task.train) // self.config.batch) * self.config.epochs


def run(job: Job, bars: ProgressBars) -> dict[str, Any]:
    """Fit, evaluate, and say what came of it, fit for JSON.

    Returns: rows (the record's columns), right and asked (the last epoch's targets by test example; None after a
        divergence), longer (length -> accuracy), diverged, rate
    """
    task, config = task_of(job), job.config
    made = model_of(config, read_model(job.model), task, job.seed)
    fit = fit_sequence(
        made.network, task, _budget(job), groups=_groups, aside=job.aside, identity={"model": job.model, **made.about},
        on="val" if job.purpose == "search" else "test", device=job.device, bars=bars, label=job.label,
    )  # fmt: skip
    first = {"model": job.model, "seed": job.seed}
    rows = [
        {**first, **_ordered(row), "parameters": made.parameters, "train_tokens_per_s": row["train_tokens_per_s"]}
        for row in fit.rows
    ]
    found: dict[str, Any] = {"rows": rows, "right": None, "asked": None, "longer": {}, "diverged": fit.diverged,
                             "rate": job.rate, **made.about}  # fmt: skip
    if fit.last is None or fit.diverged is not None:
        return found
    right, asked = fit.last.right.numpy(), fit.last.asked.numpy()
    rows[-1]["accuracy_low"], rows[-1]["accuracy_high"] = accuracy_interval(right[None], asked, seed=job.seed)
    found |= {"right": right.tolist(), "asked": asked.tolist()}
    if job.purpose == "fit":
        found["longer"] = _longer(made.network, task, job, bars)
    return found


def _ordered(row: dict[str, Any]) -> dict[str, Any]:
    found = {key: row[key] for key in ("epoch", "train_loss", "test_loss", "test_accuracy")}
    return found | {"accuracy_low": None, "accuracy_high": None}


def _longer(network: nn.Module, task: SequenceTask, job: Job, bars: ProgressBars) -> dict[str, float]:
    """Accuracy on the test splits that are longer than what was trained on."""
    found: dict[str, float] = {}
    if not task.longer:
        return found
    with bars.bar(f"{job.label}: longer sequences", len(task.longer)) as tick:
        for length, split in sorted(task.longer.items()):
            batch = max(1, min(128, _EVALUATED // length))
            found[str(length)] = evaluate(network, split, batch=batch, device=job.device).accuracy
            tick()
    return found


@functools.lru_cache(maxsize=4)
def _loaded(name: str, seed: int) -> SequenceTask:
    return load(name, seed=seed)


def task_of(job: Job) -> SequenceTask:
    """The task as this job trains on it."""
    task = _loaded(job.config.task, job.config.seed)
    if job.purpose == "search":
        return task
    whole = task.with_val_in_train()
    return whole.shuffled(job.seed) if job.purpose == "control" else whole


@dataclass(frozen=True, kw_only=True)
class Made:
    """A fresh model. about: its pattern and width, fit for JSON."""

    network: nn.Module
    parameters: int
    about: dict[str, Any]


def model_of(config: CompareConfig, model: Model, task: SequenceTask, seed: int) -> Made:
    """The model, its weights drawn from the seed.

    Raises: ValueError where steps are predicted from the ones before them and the model sees later ones
    """
    if task.kind == "next-token" and not model.forwards:
        raise ValueError(f"models: {model.name!r} reads both ways, but {task.name} asks which step comes next.")
    options: dict[str, Any] = {
        "mixer": model.pattern, "n_layers": config.layers, "head": task.kind, "n_classes": task.n_classes,
        "mlp": config.mlp, "dropout": config.dropout, "causal": model.causal,
    }  # fmt: skip
    options |= {"vocab_size": task.vocabulary} if task.vocabulary else {"d_input": task.d_input}
    width = _width(config, options)
    from salience.ssm.models.sequence_model import SequenceModel

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = SequenceModel(d_model=width, **options)
    about = {"pattern": model.pattern, "d_model": width, "n_layers": config.layers, "forwards": model.forwards}
    count = sum(parameter.numel() for parameter in network.parameters())
    return Made(network=network, parameters=count, about=about)


def _width(config: CompareConfig, options: dict[str, Any]) -> int:
    if not config.parameters:
        return config.width
    from salience.ssm.models.matching import match_width

    width, _ = match_width(config.parameters, **options)
    return int(width)


def _groups(model: nn.Module, **rates: float) -> list[dict[str, Any]]:
    from salience.ssm.layers.parameter_groups import parameter_groups

    return parameter_groups(model, **rates)


def _budget(job: Job) -> SequenceFitConfig:
    config = job.config
    return SequenceFitConfig(
        epochs=config.epochs, batch=config.batch, lr=job.rate, ssm_lr=config.ssm_lr, weight_decay=config.weight_decay,
        precision=config.precision, seed=job.seed,
    )  # fmt: skip


def counts(results: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(runs, examples): the hits of the runs that came to an end."""
    return np.asarray([found["right"] for found in results if found["right"] is not None], dtype=np.int64)


def with_aside(job: Job, folder: Path | None) -> Job:
    """The job with a place for its checkpoints."""
    return replace(job, aside=None if folder is None else folder)
