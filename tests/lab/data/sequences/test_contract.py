"""What holds for every task: shapes as the contract says, the same data every time, splits apart, shuffled labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from salience.lab import data
from salience.lab.data.sequences import TASKS, load
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import IGNORE, Split

SMALL = {
    "smnist": {}, "psmnist": {}, "digits49": {}, "digit-tagging": {"test": 40}, "copying": {"test": 64},
    "selective-copying": {"test": 64}, "induction": {"test": 64, "longest": 1024},
    "listops": {"train": 200, "test": 40},
}  # fmt: skip


@pytest.fixture(scope="module", params=SMALL)
def task(request: pytest.FixtureRequest) -> SequenceTask:
    return data.sequence_task(request.param, seed=1, **SMALL[request.param])


def test_batches_are_as_the_contract_says(task: SequenceTask) -> None:
    for split in (task.train, task.val, task.test):
        batch = split.batch(torch.arange(5))
        steps = batch.inputs.shape[1]
        assert steps <= split.length == task.length or task.name.startswith("listops")
        if task.input_kind == "token":
            assert batch.inputs.dtype == torch.int64 and batch.inputs.shape == (5, steps)
            assert batch.inputs.min() >= 0 and batch.inputs.max() < task.vocabulary
        else:
            assert batch.inputs.dtype == torch.float32 and batch.inputs.shape == (5, steps, task.d_input)
        assert batch.targets.dtype == torch.int64
        assert batch.targets.shape == ((5,) if task.kind == "classify" else (5, steps))
        asked = batch.targets[batch.targets != IGNORE]
        assert asked.min() >= 0 and asked.max() < task.n_classes
        assert batch.mask is None or (batch.mask.dtype == torch.bool and batch.mask.shape == (5, steps))


def test_an_example_is_the_same_in_any_batch_and_any_process(task: SequenceTask) -> None:
    again = load(task.name, seed=1)  # the name spells the options
    one, many = task.train.batch(torch.tensor([7])), again.train.batch(torch.tensor([3, 7, 11]))
    width = one.inputs.shape[1]
    assert torch.equal(one.inputs[0], many.inputs[1, :width])
    assert torch.equal(one.targets[0], many.targets[1])
    assert (again.majority, again.chance, again.source) == (task.majority, task.chance, task.source)


def test_every_model_sees_the_same_batches_and_each_epoch_other_ones(task: SequenceTask) -> None:
    first, again, next_epoch = (task.train.order(epoch, 16, seed=5) for epoch in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], next_epoch[0])
    assert torch.cat(first).unique().numel() == len(task.train)


def test_no_example_is_in_two_splits(task: SequenceTask) -> None:
    def contents(split: Split) -> set[bytes]:
        return {
            x.numpy().tobytes() + y.numpy().tobytes()
            for batch in split.batches(64, 512)
            for x, y in zip(batch.inputs, batch.targets, strict=True)
        }

    seen = [contents(split) for split in (task.train, task.val, task.test)]
    assert not (seen[0] & seen[1]) and not (seen[0] & seen[2]) and not (seen[1] & seen[2])


def test_the_lines_that_need_no_looking(task: SequenceTask) -> None:
    assert 0 < task.chance <= 0.11 and abs(task.majority - task.chance) < 0.12  # ListOps' commonest answer is .14
    assert task.licence and task.credit and task.source and task.metric.startswith("accuracy ")


def test_shuffled_labels_keep_their_shares_and_lose_their_inputs(task: SequenceTask) -> None:
    control = task.shuffled(seed=0)
    index = torch.arange(200)
    true, told = task.train.batch(index), control.train.batch(index)
    assert torch.equal(true.inputs, told.inputs) and true.targets.shape == told.targets.shape
    asked = true.targets != IGNORE
    assert torch.equal(asked, told.targets != IGNORE)
    agree = float((true.targets[asked] == told.targets[asked]).float().mean())
    assert agree < task.majority + 0.12  # at 200 examples chance agreement of .1 has a standard error of .021
    assert control.test is task.test


def test_val_joins_training_when_nothing_is_left_to_choose(task: SequenceTask) -> None:
    joined = task.with_val_in_train()
    if task.train.endless:
        assert joined is task
        return
    n, m = len(task.train), len(task.val)
    assert len(joined.train) == n + m
    mixed = joined.train.batch(torch.tensor([n + m - 1, 0, n]))
    for row, (split, at) in enumerate([(task.val, m - 1), (task.train, 0), (task.val, 0)]):
        alone = split.batch(torch.tensor([at]))
        assert torch.equal(mixed.inputs[row, : alone.inputs.shape[1]], alone.inputs[0])
        assert torch.equal(mixed.targets[row], alone.targets[0])
    assert len(joined.test) == len(task.test)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: load("smnits"), "task must be one of smnist, .* not 'smnits'; did you mean smnist?"),
        (lambda: load("copying:depth=3"), "copying has no option 'depth'; its options are epoch, length"),
        (lambda: load("copying:tokens=many"), "copying: tokens must be a whole number, not 'many'"),
        (lambda: load("copying:tokens"), "an option is written key=value, but 'tokens' came"),
        (lambda: load("copying", tokens=2.5), "tokens must be a whole number, not 2.5"),
        (lambda: load("copying:tokens=200"), "copying: tokens is 200, but must be from 1 to 120"),
        (lambda: load("selective-copying:length=9999999999"), "length is 9,999,999,999, but must be from 1"),
        (lambda: load("csv:"), "csv needs a path"),
        (lambda: load("text:/nowhere/at/all"), "there is no file or folder"),
        (lambda: load("fashion:folder=/nowhere"), "there is no folder /nowhere"),
        (lambda: load("timeseries:name=Pigs"), "name must be one of ACSF1, PigCVP, or come with folder=PATH"),
    ],
)
def test_bad_input_is_named_in_one_sentence(ask: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said) as told:
        ask()
    assert "\n" not in str(told.value)


def test_the_table_of_tasks_costs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = "import sys, salience.lab.data.sequences as s; assert s.TASKS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert all("\n" not in about for _, about in TASKS.values())
