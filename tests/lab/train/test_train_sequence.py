"""The trainer of comparisons: it learns, every model gets the same batches, and no kill changes the numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from salience.lab.data.sequences import load
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import IGNORE, Batch, Stored
from salience.lab.train import checkpoint
from salience.lab.train.schedule import warmup_cosine
from salience.lab.train.sequence_loss import evaluate
from salience.lab.train.train_sequence import Epoch, SequenceFit, SequenceFitConfig, fit_sequence
from salience.ssm.layers.parameter_groups import parameter_groups

CONFIG = SequenceFitConfig(epochs=2, batch=16, save_every=3)


class Tiny(nn.Module):
    """A GRU with dropout behind a linear embedding; says one class for all steps, or one a step."""

    def __init__(self, task: SequenceTask, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.embed = nn.Linear(task.d_input, width)
            self.mix = nn.GRU(width, width, batch_first=True)
            self.head = nn.Linear(width, task.n_classes)
        self.pooled = task.kind == "classify"

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        found = nn.functional.dropout(self.mix(self.embed(inputs))[0], 0.1, self.training)
        logits: Tensor = self.head(found.mean(1) if self.pooled else found)
        return logits


def small() -> SequenceTask:
    return load("digits49:train=112,test=60")  # 7 steps an epoch


def numbers(fit: SequenceFit) -> list[Epoch]:
    """The rows without the one column that a clock fills."""
    return [replace(row, train_tokens_per_s=0.0) for row in fit.rows]


def test_it_learns_and_a_shuffled_control_does_not() -> None:
    task = load("digits49:train=1500,test=200")
    config = SequenceFitConfig(epochs=3, batch=32, lr=1e-2)
    fit, control = (fit_sequence(Tiny(t, 32), t, config) for t in (task, task.shuffled()))
    accuracies = [row.test_accuracy for row in fit.rows]
    assert len(accuracies) == 3 and accuracies[-1] > 0.4 and fit.diverged is None  # .50 was seen; .1 is chance
    assert fit.rows[0].train_loss > fit.rows[-1].train_loss
    assert all(row.train_tokens_per_s > 0 for row in fit.rows)
    assert fit.last is not None and fit.last.accuracy == accuracies[-1]
    assert control.rows[-1].test_accuracy < 0.2  # 200 pictures at .1: standard deviation .021


def test_every_model_gets_the_same_batches_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = small(), []
    inner = Stored.batch

    def watched(self: Stored, index: Tensor) -> Batch:
        if self is task.train:
            seen[-1].append(index.tolist())
        return inner(self, index)

    monkeypatch.setattr(Stored, "batch", watched)
    for width in (4, 8):
        seen.append([])
        fit_sequence(Tiny(task, width), task, CONFIG)
    assert seen[0] == seen[1] and len(seen[0]) == 14
    assert sorted(at for index in seen[0][:7] for at in index) == list(range(112)) and seen[0][:7] != seen[0][7:]


class _KilledError(Exception):
    """Where a kill would have come."""


@pytest.mark.parametrize("at", [1, 5, 7, 8, 13])
def test_going_on_after_a_stop_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    task = small()
    whole_model, model, fresh = Tiny(task), Tiny(task), Tiny(task, seed=9)  # resumed into other weights
    whole = fit_sequence(whole_model, task, CONFIG)
    calls, inner = [0], torch.optim.AdamW.step

    def stopping(self: Any, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise _KilledError
        return inner(self, *args)

    with monkeypatch.context() as patched, pytest.raises(_KilledError):
        patched.setattr(torch.optim.AdamW, "step", stopping)
        fit_sequence(model, task, CONFIG, aside=tmp_path)
    # A run stopped before its first checkpoint begins anew, so there the weights have to be the first ones.
    fit = fit_sequence(Tiny(task) if at <= CONFIG.save_every else fresh, task, CONFIG, aside=tmp_path)
    assert numbers(fit) == numbers(whole)
    again = fit_sequence(fresh, task, CONFIG, aside=tmp_path)  # all done: only evaluated
    assert numbers(again) == numbers(whole) and again.rows == fit.rows
    assert again.last is not None and whole.last is not None and torch.equal(again.last.right, whole.last.right)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), whole_model.parameters(), strict=True))


def test_a_kill_in_the_midst_of_writing_spoils_nothing(tmp_path: Path) -> None:
    """A process that kills itself while it writes its second checkpoint; another one then goes on."""
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_train_sequence import CONFIG, Tiny, small
from salience.lab.train.train_sequence import Epoch, fit_sequence
inner, count = os.fsync, [0]
def fsync(handle):
    count[0] += 1
    if count[0] == 3:  # the identity, one checkpoint, and half of the next
        os.ftruncate(handle, 100)
        os.kill(os.getpid(), signal.SIGKILL)
    inner(handle)
os.fsync = fsync
task = small()
fit_sequence(Tiny(task), task, CONFIG, aside=Path({str(tmp_path)!r}))
"""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=alone, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    progress = checkpoint.resume(tmp_path, *_pair(small()))
    assert progress is not None and progress["done"] == 3
    task = small()
    whole = fit_sequence(Tiny(task), task, CONFIG)
    assert numbers(fit_sequence(Tiny(task), task, CONFIG, aside=tmp_path)) == numbers(whole)


def _pair(task: SequenceTask) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Tiny(task)
    return model, torch.optim.AdamW(parameter_groups(model, lr=1.0, weight_decay=0.0, ssm_lr=1.0))


def test_another_configuration_or_model_begins_anew(tmp_path: Path) -> None:
    task = small()
    fit_sequence(Tiny(task), task, CONFIG, aside=tmp_path, identity={"model": "a"})
    other = fit_sequence(Tiny(task, seed=1), task, CONFIG, aside=tmp_path, identity={"model": "b"})
    assert numbers(other) == numbers(fit_sequence(Tiny(task, seed=1), task, CONFIG))
    assert json.loads((tmp_path / "identity.json").read_text())["model"] == {"model": "b"}


def test_a_divergence_is_told_and_ends_the_run() -> None:
    task = small()

    class Bursting(Tiny):
        calls = 0

        def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
            self.calls += self.training
            return super().forward(inputs) * (float("nan") if self.calls == 10 else 1)

    fit = fit_sequence(Bursting(task), task, CONFIG)
    assert len(fit.rows) == 1
    assert fit.diverged is not None and fit.diverged.startswith(
        "training diverged at step 10 (epoch 2) with a rate of 0.002: the loss is nan"
    )
    wild = SequenceFitConfig(epochs=3, batch=16, lr=1e4)
    fit = fit_sequence(Tiny(task), task, wild)
    assert fit.diverged is not None and len(fit.rows) < 3


def test_tagging_and_the_split_to_choose_on() -> None:
    task = load("digit-tagging:epoch=32,test=16")
    config = SequenceFitConfig(epochs=1, batch=8)
    fit = fit_sequence(Tiny(task), task, config, on="val")
    assert fit.last is not None and int(fit.last.asked.sum()) == 16 * 140
    assert fit.last.loss == pytest.approx(evaluate(Tiny(task), task.val).loss, rel=0.5)  # four steps change little


def test_evaluation_counts_targets_and_leaves_the_mode() -> None:
    class Says(nn.Module):
        def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
            return nn.functional.one_hot(inputs, 3).float() * 20  # sure of what it sees

    split = Stored(
        inputs=torch.tensor([[0, 1, 2], [2, 2, 0]]),
        targets=torch.tensor([[0, 1, 1], [IGNORE, 2, IGNORE]]),
        length=3,
    )
    model = Says().train()
    found = evaluate(model, split, batch=1)
    assert model.training
    assert (found.right.tolist(), found.asked.tolist()) == ([2, 1], [3, 1])
    assert found.accuracy == 3 / 4 and found.loss == pytest.approx(20 / 4, rel=1e-5)  # one sure mistake of four


def test_the_schedule() -> None:
    shares = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1.0 and shares[-1] < 0.001
    assert shares[9:] == sorted(shares[9:], reverse=True)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: SequenceFitConfig(epochs=0), "epochs must be a whole number of at least 1, not 0"),
        (lambda: SequenceFitConfig(lr=float("nan")), "lr must be a number above 0, not nan"),
        (lambda: fit_sequence(Tiny(small()), small(), CONFIG, on="dev"), "on must be val or test"),
    ],
)
def test_bad_input_is_named(ask: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ask()


def test_logits_of_another_shape_are_refused() -> None:
    task = small()
    model = Tiny(task)
    model.pooled = False
    with pytest.raises(ValueError, match=r"logits are \(16, 49, 10\), but \(16, 'classes'\) are needed"):
        fit_sequence(model, task, CONFIG)
