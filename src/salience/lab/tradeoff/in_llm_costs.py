"""What every method costs at each ratio, those inside the model included: tokens go where such a method drops them.

The stages are those of `stage_costs`. Between the language model's layers, what it takes to choose is part of prefill;
merging is part of encode. So `select_ms` and `flops_scorer` are null: there is no such stage.

Glossary: p tokens before the picture, n visual tokens of it, L columns of the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from salience.lab.profile.latency import Stopwatch
from salience.lab.tradeoff.stage_costs import (
    BATCH,
    BURST,
    LOOPS,
    Case,
    Costs,
    Loops,
    Pipeline,
    cost_columns,
    later_stages,
    loops,
    measure_sizes,
    method_costs,
    prefill_case,
    timed,
)  # fmt: skip
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.in_llm.layer_hooks import Prefill, layer_masks
from salience.vlm.in_llm.llm_layers import LLMLayers
from salience.vlm.in_llm.picture_columns import InLLMPicture
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod

DEFINITION = (
    "null for methods that work inside the model: what they choose with is part of prefill_ms and flops_llm (between "
    "the language model's layers) or of encode_ms and flops_vision (merging in the tower)"
)


class InsidePipeline(Pipeline):
    """The stages of one case with one method at one ratio."""

    def __init__(self, adapter: Adapter, case: Case, method: Method, keep: float) -> None:
        super().__init__(adapter, case)
        self.method, self.budget = method, Budget(keep=keep)
        self._prefill: Prefill | None = None

    def encode(self) -> EncodedViews:
        n = self.adapter.n_tokens
        if not self.method.in_tower or n is None or self.budget.count(n) == n:
            return super().encode()
        return self.adapter.encode_merged(
            lambda n, layers: self.method.merges(n, layers, self.budget), self.case.pixels
        )

    def kept(self, encoded: EncodedViews) -> Tensor:
        """(k,): the tokens that enter the language model."""
        n = int(encoded.features.shape[1])
        return encoded.left[0].kept if encoded.left else torch.arange(n)

    def prefill(self, embedded: Tensor, places: Tensor) -> tuple[Any, Tensor]:
        with self._dropping(int(embedded.shape[1])):
            return super().prefill(embedded, places)

    def behind(self, cache: Any) -> AbstractContextManager[Any]:
        if self._prefill is None or self._prefill.layer_columns is None:
            return nullcontext()
        return layer_masks(self._prefill.decoder, cache, self._prefill.layer_columns, None)

    @contextmanager
    def _dropping(self, columns: int) -> Iterator[None]:
        prompt = self.case.prompt
        n = columns - len(prompt.prefix) - len(prompt.suffix)
        if not isinstance(self.method, InLLMMethod) or self.budget.count(n) == n:
            yield
            return
        every = torch.arange(n)
        picture = InLLMPicture(
            row=0, columns=len(prompt.prefix) + every, kept=every, tokens=every,
            places=lambda kept: torch.zeros(n, dtype=torch.bool).index_fill(0, kept, True),
            budget=Budget(tokens=self.budget.count(n)),
        )  # fmt: skip
        real = torch.ones(1, columns, dtype=torch.int64, device=self.device)
        self._prefill = Prefill(LLMLayers(self.language_model), self.method, [picture], real, side="left")
        with self._prefill.running():
            yield


def measure_costs(
    adapter: Adapter,
    case: Case,
    methods: Mapping[str, Method],
    inside: Mapping[str, Method],
    keeps: Sequence[float],
    *,
    repeats: int,
    tick: Callable[[], object] | None = None,
) -> Costs:
    """Every cost column of every (method, keep). Times are medians of `repeats` rounds, everything measured in each.

    methods: those that prune between the encoder and the projector   inside: those that work inside the model
    keeps: 1 among them; with all tokens everything costs the same, so that is measured once
    tick: called `rounds` times
    """
    outer = Pipeline(adapter, case)
    pipelines = {(name, keep): InsidePipeline(adapter, case, m, keep) for name, m in inside.items() for keep in keeps}
    pruned = {key: pipeline for key, pipeline in pipelines.items() if key[1] < 1}
    with torch.inference_mode():
        alike = loops(outer, methods, keeps if methods else (1.0,))
        found = timed((alike, _loops(pruned)), repeats, adapter.device, tick)
    with torch.no_grad():
        costs = method_costs(outer, methods, {keep: found[keep] for keep in keeps if keep in found})
        return costs | {
            key: cost_columns(found.get(key, found[1.0]), measure_sizes(pipeline, pipeline.kept))
            for key, pipeline in pipelines.items()
        }


def rounds(methods: int, inside: int, keeps: int, repeats: int) -> int:
    """How many rounds `measure_costs` takes for so many methods of either kind at so many ratios."""
    return LOOPS * (repeats + 2) * ((keeps if methods else 1) + inside * (keeps - 1))


def _loops(pipelines: Mapping[tuple[str, float], InsidePipeline]) -> Loops:
    return (
        {key: _stages(pipeline) for key, pipeline in pipelines.items()},
        {key: _prefill(pipeline, 1, "prefill", BURST) for key, pipeline in pipelines.items()},
        {key: _prefill(pipeline, BATCH, "prefill batch", 1) for key, pipeline in pipelines.items()},
    )


def _stages(pipeline: InsidePipeline) -> Callable[[Stopwatch], None]:
    def run(watch: Stopwatch) -> None:
        watch.start()
        encoded = pipeline.encode()
        watch.lap("encode")
        later_stages(pipeline, encoded, pipeline.kept(encoded), watch)

    return run


def _prefill(pipeline: InsidePipeline, pictures: int, stage: str, burst: int) -> Callable[[Stopwatch], None]:
    encoded = pipeline.encode()
    return prefill_case(pipeline, encoded, pipeline.kept(encoded), pictures, stage, burst)
