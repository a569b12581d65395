"""Train a sequence model on a task, with the budget that every model of a comparison gets.

Every model gets the same steps, batches, order, schedule and clipping; only its parameter groups are its own. An
interruption does not change the numbers. Under `accelerate launch` several processes share every batch; their results
differ from one process's by rounding and dropout only.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from salience.core.progress import ProgressBars, Tick
from salience.lab.config_checks import require_positive, require_whole
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import IGNORE, Split
from salience.lab.data_parallel import ProcessGroup, process_group
from salience.lab.train import checkpoint
from salience.lab.train.schedule import warmup_cosine
from salience.lab.train.sequence_loss import Evaluation, evaluate, logits_of, loss_sum
from salience.ssm.layers.parameter_groups import parameter_groups

SSM_LR = 1e-3  # full rate of a state space's parameters (A, B, dt)
WEIGHT_DECAY = 0.01  # of the weights, by AdamW
_CLIP = 1.0  # largest norm of the gradient
_HOPELESS = 3.0  # an epoch's mean loss above so many times that of a uniform guess is a divergence


@dataclass(frozen=True, kw_only=True)
class SequenceFitConfig:
    """Training budget.

    batch: examples a step   lr: full rate of the weights   seed: of the batch order and of dropout, not of the weights
    save_every: steps between checkpoints
    """

    epochs: int = 5
    batch: int = 32
    lr: float = 2e-3
    seed: int = 0
    save_every: int = 200

    def __post_init__(self) -> None:
        require_whole(self, ("epochs", "batch", "save_every"), 1)
        require_positive(self, ("lr",))


@dataclass(frozen=True)
class Epoch:
    """One finished epoch, as in `CompareRow`.

    train_tokens_per_s: median over the epoch's steps since the run last started, without evaluation and saving
    """

    epoch: int
    train_loss: float
    test_loss: float | None
    test_accuracy: float
    train_tokens_per_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceFit:
    """Result of a training run.

    last: evaluation of the last epoch; None where the run diverged in the first one
    diverged: one sentence on where and how, or None
    """

    rows: tuple[Epoch, ...]
    last: Evaluation | None
    diverged: str | None


@dataclass
class _Progress:
    """Progress of a run, which a checkpoint holds beside the model and the optimiser."""

    done: int = 0
    loss: float = 0.0  # summed over this epoch's targets
    targets: int = 0
    rows: list[Epoch] = field(default_factory=list)
    diverged: str | None = None


def fit_sequence(
    model: nn.Module,
    task: SequenceTask,
    config: SequenceFitConfig,
    *,
    aside: Path | None = None,
    identity: dict[str, Any] | None = None,
    on: str = "test",
    device: str | torch.device = "cpu",
    bars: ProgressBars | None = None,
    label: str = "model",
) -> SequenceFit:
    """Train `model` in place and evaluate it after every epoch.

    Args:    model: `model(inputs, mask=None)` gives logits (b, K) to classify, (b, L, K) otherwise
             aside: folder for checkpoints. A killed run continues from there and ends with the same numbers. Another
                 `identity`, task or configuration removes the checkpoints. The caller removes the folder in the end
             identity: JSON that tells this model from others with the same training configuration
             on: the split to evaluate; "val" while something is still to be chosen
             device: of one process; of several launched processes each has its own device of that kind
             bars, label: progress bars, and the text in front of this run's bar
    Returns: the rows and the last evaluation; a run that diverges ends early and sets `diverged`
    Raises:  ValueError where the model's logits don't fit the task, and for an unknown split
    """
    if on not in ("val", "test"):
        raise ValueError(f"on must be val or test, not {on!r}.")
    group = process_group(device)
    device = group.device
    model.to(device)
    rates = parameter_groups(model, lr=config.lr, weight_decay=WEIGHT_DECAY, ssm_lr=SSM_LR)
    optimiser = torch.optim.AdamW(rates)
    for each in optimiser.param_groups:
        each["full_lr"] = each["lr"]
    state = _Progress()
    if aside is not None:
        if group.first:
            about = {"model": identity, "task": task.name, "source": task.source, "config": asdict(config), "on": on}
            checkpoint.claim(aside, {**about, "torch": torch.__version__, "device": str(device)})
        group.wait()
        if found := checkpoint.resume(aside, model, optimiser):
            state = _Progress(**{**found, "rows": [Epoch(**row) for row in found["rows"]]})
        group.wait()  # no process may save before all have read
    run = _Run(model=model, task=task, config=config, optimiser=optimiser, state=state, aside=aside, group=group)
    devices = [device] if device.type == "cuda" else []
    bars = bars if bars is not None and group.first else ProgressBars()
    with torch.random.fork_rng(devices), bars.bar(label, run.steps) as tick:
        tick(state.done)
        last = run.train(getattr(task, on), tick, label)
    return SequenceFit(rows=tuple(state.rows), last=last, diverged=state.diverged)


@dataclass(kw_only=True, eq=False)
class _Run:
    model: nn.Module
    task: SequenceTask
    config: SequenceFitConfig
    optimiser: torch.optim.Optimizer
    state: _Progress
    aside: Path | None
    group: ProcessGroup

    def __post_init__(self) -> None:
        self.device = self.group.device
        self.wrapped = self.group.wrap(self.model)
        self.per_epoch = -(-len(self.task.train) // self.config.batch)
        self.steps = self.per_epoch * self.config.epochs

    def train(self, split: Split, tick: Tick, label: str) -> Evaluation | None:
        """Run the remaining steps and evaluate after each epoch. Returns the last evaluation."""
        state, last = self.state, None
        while state.done < self.steps and state.diverged is None:
            epoch, start = divmod(state.done, self.per_epoch)
            rates: list[float] = []
            for index in self.task.train.order(epoch, self.config.batch, self.config.seed)[start:]:
                began = time.perf_counter()
                tokens = self.step(index)
                if tokens is None:
                    break
                rates.append(tokens / (time.perf_counter() - began))
                tick()
                tick.say(f"{label}: epoch {epoch + 1}, loss {state.loss / max(1, state.targets):.3f}")
                if state.done % self.config.save_every == 0 and state.done % self.per_epoch:
                    self.save()
            else:
                last = self.close_epoch(split, median(rates))
            self.save()
        if last is None and state.rows and state.diverged is None:
            last = evaluate(self.model, split, device=self.device)  # an earlier process finished the training
        return last

    def step(self, index: Tensor) -> int | None:
        """Run one optimiser step. Returns the number of tokens, or None after a divergence."""
        state, config = self.state, self.config
        # Dropout depends on seed and step alone, so a resumed run draws the same masks as an uninterrupted one.
        torch.manual_seed(config.seed * 1_000_003 + state.done + self.group.index * 1_000_000_007)
        share = warmup_cosine(state.done, self.steps)
        for each in self.optimiser.param_groups:
            each["lr"] = each["full_lr"] * share
        batch = self.task.train.batch(self.group.part(index))
        self.model.train()
        logits, targets = logits_of(self.wrapped, batch, self.device)
        total, (count,) = loss_sum(logits, targets), self.group.total(int((targets != IGNORE).sum()))
        self.optimiser.zero_grad(set_to_none=True)
        (total * self.group.count / count).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        read = batch.inputs.shape[0] * batch.inputs.shape[1] if batch.mask is None else int(batch.mask.sum())
        loss, tokens = self.group.total(float(total.detach()), read)
        size = float(norm)
        if not (math.isfinite(loss) and math.isfinite(size)):
            self.diverge(f"the loss is {loss / count:g}, its gradient's norm {size:g}")
            return None
        self.optimiser.step()
        state.done, state.loss, state.targets = state.done + 1, state.loss + loss, state.targets + int(count)
        return int(tokens)

    def close_epoch(self, split: Split, rate: float) -> Evaluation:
        state = self.state
        found = evaluate(self.model, split, device=self.device)
        train_loss = state.loss / state.targets
        test_loss = found.loss if math.isfinite(found.loss) else None
        epoch = state.done // self.per_epoch
        state.rows.append(Epoch(epoch, train_loss, test_loss, found.accuracy, train_tokens_per_s=rate))
        state.loss, state.targets = 0.0, 0
        if test_loss is None or train_loss > _HOPELESS * math.log(self.task.n_classes):
            self.diverge(f"the epoch's loss is {train_loss:g} in training, {found.loss:g} in the test")
        return found

    def diverge(self, reason: str) -> None:
        epoch = self.state.done // self.per_epoch + 1
        where = f"step {self.state.done + 1:,} (epoch {epoch}) with a rate of {self.config.lr:g}"
        self.state.diverged = f"training diverged at {where}: {reason}."

    def save(self) -> None:
        if self.aside is not None and self.group.first:
            checkpoint.save(self.aside, self.model, self.optimiser, asdict(self.state))
