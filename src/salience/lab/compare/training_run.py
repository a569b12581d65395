"""One training run of a comparison: one model with one seed, on the budget that all models get."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from salience.core.progress import ProgressBars
from salience.core.result_object import ResultObject
from salience.core.result_rows import CompareRow
from salience.lab.compare.config import CompareConfig, ModelSpec, read_model
from salience.lab.compare.metrics import accuracy_interval
from salience.lab.data.sequences import load
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.train.sequence_loss import evaluate
from salience.lab.train.train_sequence import SequenceFitConfig, fit_sequence
from salience.ssm.models.matching import match_width
from salience.ssm.models.sequence_model import SequenceModel

Purpose = Literal["fit", "search", "control"]
_EVALUATED = 128 * 1024  # tokens in one batch of an evaluation
MLP = "auto"  # of every model: one behind each layer that has no gate


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run. aside: folder for checkpoints
    purpose: "search" trains without the validation split and is scored on it; "control" trains on shuffled labels"""

    config: CompareConfig
    model: str
    seed: int
    rate: float
    purpose: Purpose = "fit"
    aside: Path | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """File name, different from that of every other job of the comparison."""
        kind = {"fit": "", "search": f"-rate-{self.rate:g}", "control": "-shuffled"}[self.purpose]
        return f"{self.config.task}-{self.model}-{self.seed}{kind}".replace("/", "_").replace(":", "_")

    @property
    def label(self) -> str:
        """Text in front of the progress bar."""
        kind = {"fit": f"seed {self.seed}", "search": f"rate {self.rate:g}", "control": "shuffled labels"}[self.purpose]
        return f"{self.model}, {kind}"


@dataclass(frozen=True, kw_only=True)
class RunResult(ResultObject):
    """Result of one training run. `right` and `asked` are None after a divergence."""

    pattern: str  # of the model
    d_model: int
    n_layers: int
    forwards: bool  # whether a step sees only the steps before it
    rate: float  # learning rate
    rows: tuple[CompareRow, ...]  # one an epoch
    right: tuple[int, ...] | None = None  # correct targets of each test example after the last epoch
    asked: tuple[int, ...] | None = None  # targets of each test example
    longer: Mapping[str, float] = field(default_factory=dict)  # length -> accuracy, beyond the length of training
    diverged: str | None = None  # a sentence


def run(job: Job, bars: ProgressBars) -> RunResult:
    """Train and evaluate."""
    task, config = task_of(job), job.config
    network, about = model_of(config, read_model(job.model), task, job.seed)
    budget = SequenceFitConfig(epochs=config.epochs, batch=config.batch, lr=job.rate, seed=job.seed)
    fit = fit_sequence(
        network, task, budget, aside=job.aside,
        identity={"model": job.model, **about}, on="val" if job.purpose == "search" else "test",
        device=job.device, bars=bars, label=job.label,
    )  # fmt: skip
    count = sum(parameter.numel() for parameter in network.parameters())
    rows = [CompareRow(model=job.model, seed=job.seed, parameters=count, **asdict(epoch)) for epoch in fit.rows]
    if fit.last is None or fit.diverged is not None:
        return RunResult(rows=tuple(rows), diverged=fit.diverged, rate=job.rate, **about)
    right, asked = fit.last.right.numpy(), fit.last.asked.numpy()
    low, high = accuracy_interval(right[None], asked, seed=job.seed)
    rows[-1] = replace(rows[-1], accuracy_low=low, accuracy_high=high)
    longer = _longer(network, task, job, bars) if job.purpose == "fit" else {}
    return RunResult(
        rows=tuple(rows), right=tuple(right.tolist()), asked=tuple(asked.tolist()), longer=longer, rate=job.rate,
        **about,
    )  # fmt: skip


def _longer(network: nn.Module, task: SequenceTask, job: Job, bars: ProgressBars) -> dict[str, float]:
    """Accuracy on the test splits that are longer than the training sequences."""
    found: dict[str, float] = {}
    with bars.bar(f"{job.label}: longer sequences", len(task.longer)) as tick:
        for length, split in sorted(task.longer.items()):
            batch = max(1, min(128, _EVALUATED // length))
            found[str(length)] = evaluate(network, split, batch=batch, device=job.device).accuracy
            tick()
    return found


_load = functools.lru_cache(maxsize=4)(load)


def task_of(job: Job) -> SequenceTask:
    """Return the task as this job trains on it."""
    task = _load(job.config.task, seed=job.config.seed)
    if job.purpose == "search":
        return task
    whole = task.with_val_in_train()
    return whole.shuffled(job.seed) if job.purpose == "control" else whole


def model_of(
    config: CompareConfig, model: ModelSpec, task: SequenceTask, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model with weights drawn from the seed, and its pattern, d_model, n_layers and forwards.

    Raises:  ValueError where the task is to predict the next step and the model reads later steps
    """
    if task.kind == "next-token" and not model.forwards:
        raise ValueError(f"models: {model.name!r} reads both ways, but {task.name} asks which step comes next.")
    options: dict[str, Any] = {
        "mixer": model.pattern, "n_layers": config.layers, "head": task.kind, "n_classes": task.n_classes,
        "mlp": MLP, "causal": model.causal,
    }  # fmt: skip
    options |= {"vocab_size": task.vocabulary} if task.vocabulary else {"d_input": task.d_input}
    width = match_width(config.parameters, **options)[0] if config.parameters else config.width
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = SequenceModel(d_model=width, **options)
    about = {"pattern": model.pattern, "d_model": width, "n_layers": config.layers, "forwards": model.forwards}
    return network, about
