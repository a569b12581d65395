"""Rows of the results document: what studies measure and reports read, one class for each kind of record.

Names carry units: `_ms` are milliseconds, `_bytes` bytes, `flops_` floating-point operations with 2 a multiply-add;
accuracies and shares lie in 0..1. None is what was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from salience.core.result_object import ResultObject

#: Question kinds of the `scenes` task, which every trade-off row has a column for.
KINDS = ("digit_of_colour", "colour_of_digit", "is_there", "count", "relation")

TRADEOFF_TIMES = ("encode_ms", "select_ms", "project_ms", "prefill_ms", "first_token_ms", "decode_ms_per_token")
TRADEOFF_COSTS = ("flops_total", "flops_llm", "kv_bytes", "peak_bytes")
TRADEOFF_QUALITY = (
    "accuracy", "accuracy_low", "accuracy_high", "answer_kl", "probe_accuracy", "feature_cosine", "saliency_mass",
    *(f"accuracy_{kind}" for kind in KINDS),
)  # fmt: skip
_TRADEOFF = ("method", "keep", "tokens_kept", "seed", *TRADEOFF_QUALITY, *TRADEOFF_TIMES, *TRADEOFF_COSTS)
_KIND = "accuracy_"


def _is_kind(column: str) -> bool:
    """Whether a column is the accuracy of a kind of question."""
    return column.startswith(_KIND) and column not in ("accuracy_low", "accuracy_high")


class ResultRow(ResultObject):
    """Base of the three kinds of row."""

    def numbers(self) -> dict[str, float]:
        """Return the columns that were measured, by their names in the file; text is left out."""
        return {name: float(value) for name, value in self.to_json().items() if isinstance(value, int | float)}


@dataclass(frozen=True, kw_only=True)
class TradeoffRow(ResultRow):
    """One method at one keep ratio with one seed, on one vision-language model.

    A writer gives what it measured and nothing else::

        TradeoffRow(method="random", keep=0.25, seed=0, tokens_kept=144, accuracy=0.61,
                    accuracy_by_kind={"is_there": 0.7}, prefill_ms=12.5)

    Costs and quality that come from two places are merged as keywords: `TradeoffRow(method=..., **costs, **quality)`.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = tuple(name for name in _TRADEOFF if not _is_kind(name))

    method: str  # name of the pruning method
    keep: float  # share of a picture's visual tokens, in (0, 1]
    tokens_kept: float | None = None  # visual tokens of a picture; a mean where the method finds its own count
    seed: int | None = None  # of the fitted scorer or of the random draw
    accuracy: float | None = None  # mean over questions
    accuracy_low: float | None = None  # lower end of the 95 % bootstrap interval over pictures
    accuracy_high: float | None = None  # upper end
    answer_kl: float | None = None  # KL(full || pruned) in nats, mean over answer tokens and questions
    probe_accuracy: float | None = None  # share of the (digit, colour) pairs that a probe names
    feature_cosine: float | None = None  # mean of the kept projected tokens against the mean of all
    saliency_mass: float | None = None  # share kept of the unpruned text-to-image attention
    #: Accuracy by kind of question. In the file each is a column `accuracy_<kind>`; those of `KINDS` are always there.
    accuracy_by_kind: Mapping[str, float | None] = field(default_factory=dict)
    encode_ms: float | None = None  # vision tower
    select_ms: float | None = None  # scoring and choosing
    project_ms: float | None = None  # projector, on the kept tokens
    prefill_ms: float | None = None  # language model over the prompt
    first_token_ms: float | None = None  # sum of the stages above, or `generate` of one token
    decode_ms_per_token: float | None = None  # each further token
    flops_total: float | None = None  # up to the first token
    flops_llm: float | None = None  # of it, the language model
    kv_bytes: float | None = None  # KV cache after prefill
    peak_bytes: float | None = None  # most bytes of live tensors, weights included
    prefill_batch4_ms: float | None = None  # prefill of four pictures at once, in all
    flops_vision: float | None = None  # of flops_total, the vision tower
    flops_scorer: float | None = None  # of flops_total, scoring and choosing
    flops_projector: float | None = None  # of flops_total, the projector
    exact_match: float | None = None  # share of answers that are an accepted one
    vqa_accuracy: float | None = None  # VQA accuracy, where questions have four answers or more
    loglikelihood_accuracy: float | None = None  # share of questions whose right choice is the likeliest
    n_pictures: int | None = None  # pictures that the row was measured on
    item_share: float | None = None  # share of the kept tokens that lie on an item

    def __post_init__(self) -> None:
        if not self.method:
            raise ValueError("method is '', but must be a name")
        _require_ratio(self.keep)

    @classmethod
    def from_json(cls, found: object, where: str) -> Self:
        """See `ResultObject.from_json`; columns `accuracy_<kind>` become `accuracy_by_kind`."""
        if not isinstance(found, Mapping):
            return super().from_json(found, where)
        missing = [column for column in _TRADEOFF if _is_kind(column) and column not in found]
        if missing:
            raise ValueError(f"{where} lacks {', '.join(missing)}; what was not measured is written as null")
        others = {name: value for name, value in found.items() if not _is_kind(name)}
        kinds = {name.removeprefix(_KIND): value for name, value in found.items() if _is_kind(name)}
        return super().from_json({**others, "accuracy_by_kind": kinds}, where)

    def to_json(self) -> dict[str, Any]:
        """Every column in the file's order: the required ones, the further ones, null for what was not measured."""
        values = super().to_json()
        kinds = values.pop("accuracy_by_kind")
        values |= {f"{_KIND}{kind}": kinds.get(kind) for kind in (*KINDS, *kinds)}
        return {name: values[name] for name in (*_TRADEOFF, *(name for name in values if name not in _TRADEOFF))}


@dataclass(frozen=True, kw_only=True)
class CompareRow(ResultRow):
    """One epoch of one sequence model's training with one seed.

    A writer makes one after each epoch; the interval is of the last epoch alone and None before::

        CompareRow(model="mamba", seed=0, epoch=1, train_loss=0.8, test_loss=0.7, test_accuracy=0.61,
                   parameters=20906, train_tokens_per_s=50757.2)
    """

    REQUIRED: ClassVar[tuple[str, ...]] = (
        "model", "seed", "epoch", "train_loss", "test_loss", "test_accuracy", "parameters", "train_tokens_per_s",
    )  # fmt: skip

    model: str  # name or pattern
    seed: int  # of the weights and of the order of batches
    epoch: int  # passes over the training data, from 1
    train_loss: float | None = None  # nats a target, mean over the epoch
    test_loss: float | None = None  # nats a target
    test_accuracy: float | None = None
    accuracy_low: float | None = None  # lower end of the 95 % bootstrap interval over test examples
    accuracy_high: float | None = None  # upper end
    parameters: int | None = None  # learnt numbers
    train_tokens_per_s: float | None = None  # median over optimiser steps


@dataclass(frozen=True, kw_only=True)
class ProfileRow(ResultRow):
    """One keep ratio of a profile: counted work, predicted times, and measured ones where there are weights.

    Everything is of the whole batch, up to the first token::

        ProfileRow(keep=0.25, tokens_kept=144, tokens_entered=144, flops_vision=..., predicted_llm_ms=...)
    """

    REQUIRED: ClassVar[tuple[str, ...]] = (
        "keep", "tokens_kept", "flops_vision", "flops_scorer", "flops_projector", "flops_llm", "flops_total",
        "kv_bytes", "peak_bytes",
    )  # fmt: skip

    keep: float  # in (0, 1]
    tokens_kept: int  # of a picture
    tokens_entered: int | None = None  # into the language model; more than tokens_kept for a method inside it
    flops_vision: float | None = None
    flops_scorer: float | None = None
    flops_projector: float | None = None  # on the kept tokens
    flops_llm: float | None = None
    flops_total: float | None = None
    kv_bytes: float | None = None  # decoded tokens included
    peak_bytes: float | None = None  # weights included
    flops_projector_all: float | None = None  # the projector on all tokens
    flops_decode: float | None = None  # of all decoded tokens
    predicted_vision_ms: float | None = None  # predicted from the roofline, so are the next five
    predicted_scorer_ms: float | None = None
    predicted_projector_ms: float | None = None
    predicted_llm_ms: float | None = None
    predicted_first_token_ms: float | None = None
    predicted_decode_ms_per_token: float | None = None
    vision_ms: float | None = None  # measured, so are the next six
    scorer_ms: float | None = None
    projector_ms: float | None = None
    llm_ms: float | None = None
    rest_ms: float | None = None  # what no stage has; not predicted
    first_token_ms: float | None = None
    decode_ms_per_token: float | None = None
    vision_measured_over_predicted: float | None = None  # ratios of the two times, so are the next three
    scorer_measured_over_predicted: float | None = None
    projector_measured_over_predicted: float | None = None
    llm_measured_over_predicted: float | None = None

    def __post_init__(self) -> None:
        _require_ratio(self.keep)


#: kind of record -> columns that every row in a file has
ROW_COLUMNS: dict[str, tuple[str, ...]] = {
    "tradeoff": _TRADEOFF, "profile": ProfileRow.REQUIRED, "compare": CompareRow.REQUIRED,
}  # fmt: skip


def _require_ratio(keep: float) -> None:
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep!r}, but must be above 0 and at most 1")
