"""Contract between a sequence task and its trainers.

Glossary: n examples of a split, b of a batch; L steps; K classes; V ids of a token vocabulary; d_input numbers a step.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from salience.lab.data.sequences.splits import IGNORE, Split, Stored

_COUNTED = 4096  # examples of each split for the baselines: the standard error of a share is below .008


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceTask:
    """One task: its data, targets, score and baselines. A trainer needs nothing else.

    **Targets** (`kind`)
        classify    one of `n_classes` for a whole sequence; targets (b,)
        tag         one of `n_classes` for each step that has a target; targets (b, L), -100 (`splits.IGNORE`) for the
                    other steps. The model decides whether it reads only the past or both sides
        next-token  the step after each step; targets (b, L); n_classes = vocabulary; only causal models may be scored

    **Steps** (`input_kind`)
        token       inputs (b, L) int64 in 0..vocabulary-1; d_input is 0
        scalar      inputs (b, L, 1) float32; d_input is 1 and vocabulary 0
        patch       inputs (b, L, d_input) float32; vocabulary 0

    **The data** are `splits.Split`s: `split.batch(index) -> Batch(inputs, targets, mask)`, padded on the right, with a
    mask (b, L), True for valid steps, or None where all are valid. The same name, options and `seed` give the same data
    on every machine, and `train.order(epoch, batch, seed)` the same batches to all models. No example is in two splits;
    `source` tells what else separates them (writers, files, sessions, groups). All choices are made on `val`. `longer`
    has further test splits by length, all longer than the training sequences (empty for most tasks).

    **The score** is accuracy: the share of targets (without -100) that the largest logit hits; `metric` describes one
    target. The loss is the cross-entropy over the same targets, in nats. `majority` is the test accuracy of always
    giving the commonest training target; `chance` that of a uniform guess among the answers that occur.

    name: as given, with the options that differ from the default; `load` sets it
    guess: `majority` and `chance` where all targets are equally likely; else both are counted
    source: origin of the data and of the splits   licence, credit: of the data, not of this package
    classes: names of the classes, if they have names
    """

    name: str = ""
    kind: Literal["classify", "tag", "next-token"]
    n_classes: int
    vocabulary: int = 0
    d_input: int = 0
    train: Split
    val: Split
    test: Split
    longer: Mapping[int, Split] = field(default_factory=dict)
    metric: str
    guess: float | None = None
    source: str
    licence: str
    credit: str
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.n_classes < 2:
            raise ValueError(f"n_classes is {self.n_classes}, but there must be at least 2 to tell apart.")

    @property
    def input_kind(self) -> str:
        """Kind of the steps: "token", "scalar" or "patch"."""
        return "token" if self.vocabulary else "scalar" if self.d_input == 1 else "patch"

    @property
    def length(self) -> int:
        """L of the training sequences, the longest if they vary."""
        return self.train.length

    @property
    def majority(self) -> float:
        """Test accuracy of the commonest training target."""
        return self._without_input[0]

    @property
    def chance(self) -> float:
        """Test accuracy of a uniform guess among the training targets."""
        return self._without_input[1]

    @functools.cached_property
    def _without_input(self) -> tuple[float, float]:
        if self.guess is not None:
            return self.guess, self.guess
        seen, asked = torch.zeros(2, self.n_classes, dtype=torch.int64)
        for split, counts in ((self.train, seen), (self.test, asked)):
            for batch in split.batches(256, _COUNTED):
                counts += torch.bincount(batch.targets[batch.targets != IGNORE], minlength=self.n_classes)
        return float(asked[int(seen.argmax())] / asked.sum()), 1.0 / int((seen > 0).sum())

    def with_val_in_train(self) -> SequenceTask:
        """Return the task that trains on `train` and `val` together, after all choices on `val` are made.

        A generated training set needs no more examples and stays as it is.
        """
        if isinstance(self.train, Stored) and isinstance(self.val, Stored):
            return replace(self, train=self.train.joined(self.val))
        return self

    def shuffled(self, seed: int = 0) -> SequenceTask:
        """Return the control: each training example has the targets of another one, so no model can learn more than
        `majority`."""
        return replace(self, name=f"{self.name} (shuffled labels)", train=self.train.shuffled(seed))
