"""Further tables of the results document: paired differences, samples, and what a comparison says besides its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from salience.core.result_object import ResultObject

#: `AccuracyDifference.against` where a method is compared with itself at keep 1.
ALL_TOKENS = "all tokens"


@dataclass(frozen=True, kw_only=True)
class SeedDifference(ResultObject):
    """One seed's part of an `AccuracyDifference`."""

    seed: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class AccuracyDifference(ResultObject):
    """Accuracy of a method minus that of another on the same questions, with its 95 % interval over pictures."""

    method: str  # ALL_TOKENS in `blind_differences`
    keep: float
    against: str  # a method, ALL_TOKENS, or in `blind_differences` "question only" or "majority answer"
    difference: float  # of accuracies in 0..1
    low: float
    high: float
    by_seed: tuple[SeedDifference, ...] = ()  # of a method with several seeds against random

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low is {self.low!r} and high is {self.high!r}, but low must not be above high")

    def to_json(self) -> dict[str, Any]:
        """As `ResultObject.to_json`; `by_seed` is left out where there is none."""
        return {name: value for name, value in super().to_json().items() if name != "by_seed" or value}


@dataclass(frozen=True, kw_only=True)
class KindDifference(ResultObject):
    """Accuracy of a method minus that of all tokens on one kind of question, with its 95 % interval."""

    method: str
    keep: float
    kind: str  # as the accuracy columns spell it
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ExampleCut(ResultObject):
    """Tokens that a method kept of a sample picture, and the answer given from them."""

    method: str
    keep: float
    kept: tuple[int, ...]  # indices in raster order
    answer: str


@dataclass(frozen=True, kw_only=True)
class Example(ResultObject):
    """A sample: a picture with its question, the answers, and what methods kept of it."""

    image: str | None  # path from the document's folder
    question: str
    answer: str  # the true one
    full_answer: str | None = None  # from all tokens
    kind: str = ""  # of question
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # of items: (x0, y0, x1, y1) in pixels
    grid: tuple[int, int] = (24, 24)  # rows and columns of visual tokens
    cuts: tuple[ExampleCut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelResult(ResultObject):
    """A sequence model after its last epoch, over the seeds whose training ended. JSON key: `final`."""

    model: str
    pattern: str  # mixers of the layers, one letter each
    d_model: int | None = None
    n_layers: int | None = None
    forwards: bool  # whether a step sees only the steps before it
    rate: float | None = None  # learning rate
    seeds: int | None = None  # whose training ended
    diverged: int = 0  # seeds whose training did not end
    accuracy: float | None = None  # mean over seeds
    accuracy_low: float | None = None  # 95 % bootstrap interval over test examples and seeds
    accuracy_high: float | None = None
    parameters: int | None = None
    train_tokens_per_s: float | None = None  # median over seeds


@dataclass(frozen=True, kw_only=True)
class ModelDifference(ResultObject):
    """Accuracy of `first` minus that of `second` on the same test examples. JSON key: `tests`."""

    first: str
    second: str
    difference: float
    low: float  # 95 % bootstrap interval over test examples and seeds
    high: float
    p: float | None = None  # exact paired sign-flip test
    seeds: int | None = None  # of each model that were compared
    seeds_agree: bool  # whether every seed's difference has one sign
    examples: int | None = None
    p_holm: float  # p after Holm's correction over all pairs


@dataclass(frozen=True, kw_only=True)
class LengthAccuracy(ResultObject):
    """Accuracy of a model on sequences longer than those of its training. JSON key: `longer`."""

    model: str
    length: int  # steps
    accuracy: float  # mean over seeds
    accuracy_low: float  # lowest seed
    accuracy_high: float  # highest seed
    seeds: int


@dataclass(frozen=True, kw_only=True)
class ShuffledControl(ResultObject):
    """A model trained on shuffled labels. JSON key: `control`."""

    model: str
    seed: int | None = None
    epoch: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    majority: float | None = None  # accuracy of always giving the commonest answer


@dataclass(frozen=True, kw_only=True)
class LengthCost(ResultObject):
    """Inference of an untrained copy of a model at one length. JSON key: `throughput`."""

    model: str
    length: int  # steps
    tokens_per_s: float | None
    peak_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class DivergedRun(ResultObject):
    """A training that did not end. JSON key: `diverged`."""

    model: str
    seed: int
    said: str
