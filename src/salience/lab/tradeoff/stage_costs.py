"""What each method costs at each ratio: time by stage, operations, cache and peak bytes of one picture's question.

The stages are those that pruning runs: encode (vision tower), select (scores and top k), project (gathering the kept
tokens, the projector, placing them in the prompt), prefill (language model and head for the last token), decode.
Stages other than select see only how many tokens there are, so they are timed once a ratio and shared by the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from salience.core.result_object import ResultObject
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.lab.evaluate.prompts import Prompt
from salience.lab.profile.flops import count_flops
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.peak_memory import kv_bytes, peak_bytes
from salience.vlm.families import Adapter, EncodedViews
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget

DECODE_STEPS = 8
#: How often the timing goes through its rounds: the stages, prefill, prefill of a batch.
LOOPS = 3
#: Calls that a prefill's time is the mean of, one behind the other.
BURST = 3
#: Prefill is also timed on so many pictures at once: alone, a small model waits for its operators to be launched as
#: much as it computes, and the clock falls behind the operations; together they show what the operations predict.
BATCH = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One picture with one question. pixels: (1, 3, H, W) on the model's device"""

    pixels: Tensor
    prompt: Prompt


@dataclass(frozen=True, kw_only=True)
class CostColumns(ResultObject):
    """Cost columns of a `TradeoffRow`."""

    encode_ms: float | None = None
    select_ms: float | None = None
    project_ms: float | None = None
    prefill_ms: float | None = None
    first_token_ms: float | None = None
    decode_ms_per_token: float | None = None
    prefill_batch4_ms: float | None = None
    flops_total: float | None = None
    flops_llm: float | None = None
    flops_vision: float | None = None
    flops_scorer: float | None = None
    flops_projector: float | None = None
    kv_bytes: float | None = None
    peak_bytes: float | None = None


#: (method or cost name, ratio) -> cost columns
Costs = Mapping[tuple[str, float], CostColumns]


class Pipeline:
    """The stages of one case, one call each."""

    def __init__(self, adapter: Adapter, case: Case) -> None:
        self.adapter, self.case = adapter, case
        self.device = case.pixels.device
        self.language_model: Any = adapter.language_model

    def encode(self) -> EncodedViews:
        return self.adapter.encode(self.case.pixels)

    def select(self, encoded: EncodedViews, method: Method, keep: float) -> Tensor:
        return method.select(encoded.context(0, method.needs), Budget(keep=keep)).kept

    def project(self, encoded: EncodedViews, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The pruned prompt's embeddings (1, L, d_llm) and positions (1, L)."""
        prompt, n = self.case.prompt, encoded.features.shape[1]
        visual = self.adapter.project(encoded.features[0, kept.to(self.device)])
        p, s = len(prompt.prefix), len(prompt.suffix)
        ids = [*prompt.prefix, *[self.adapter.image_token_id] * len(kept), *prompt.suffix]
        embedded = self.adapter.embed(torch.tensor([ids], device=self.device), [visual])
        places = torch.cat([torch.arange(p), p + kept, p + n + torch.arange(s)])
        return embedded, places[None].to(self.device)

    def prefill(self, embedded: Tensor, places: Tensor) -> tuple[Any, Tensor]:
        """The cache, and the logits (1, V) that the first token is read from."""
        mask = torch.ones(embedded.shape[:2], dtype=torch.int64, device=self.device)
        out = self.language_model(inputs_embeds=embedded, attention_mask=mask, position_ids=places, use_cache=True)
        return cache_of_output(out), self.adapter.lm_head(out.last_hidden_state[:, -1])

    def decode(self, cache: Any, logits: Tensor, place: Tensor) -> None:
        """DECODE_STEPS further tokens; place (1, 1): the last token's position."""
        named = passed_cache(self.language_model, cache)
        for step in range(DECODE_STEPS):
            embedded = self.adapter.model.get_input_embeddings()(logits.argmax(-1, keepdim=True))
            seen = torch.ones(1, cache.get_seq_length() + 1, dtype=torch.int64, device=self.device)
            with self.behind(cache):
                out = self.language_model(
                    inputs_embeds=embedded,
                    attention_mask=seen,
                    position_ids=place + 1 + step,
                    use_cache=True,
                    **named,
                )
            logits = self.adapter.lm_head(out.last_hidden_state[:, -1])

    def behind(self, cache: Any) -> AbstractContextManager[Any]:
        """What the language model needs to go on from such a cache."""
        return nullcontext()


#: For each loop, what is run of each thing that is measured: of a ratio, or of a method inside the model at one.
Loops = tuple[Mapping[Any, Callable[[Stopwatch], None]], ...]


def method_costs(
    pipeline: Pipeline, methods: Mapping[str, Method], times: Mapping[float, Mapping[str, float]]
) -> dict[tuple[str, float], CostColumns]:
    """Return the cost of every (method, keep). times: ratio -> result of `timed` for the `loops` of these methods"""
    found = {}
    for keep, stages in times.items():
        sizes = measure_sizes(pipeline, partial(_spread, keep=keep))
        for name, method in methods.items():
            both = count_flops(lambda m=method, k=keep: pipeline.select(pipeline.encode(), m, k))
            found[name, keep] = cost_columns(stages, sizes, select=f"select {name}", select_flops=both - sizes.encode)
    return found


def timed(
    loops: Sequence[Loops], repeats: int, device: torch.device, tick: Callable[[], object] | None
) -> dict[Any, dict[str, float]]:
    """Median milliseconds by key and stage: each of the `LOOPS` loops on its own, all that is measured taking turns."""
    found: dict[Any, dict[str, float]] = {}
    for cases in zip(*loops, strict=True):
        every = {key: case for some in cases for key, case in some.items()}
        for key, stages in measure(every, repeats=repeats, device=device, tick=tick).items():
            found.setdefault(key, {}).update(stages)
    return found


def loops(pipeline: Pipeline, methods: Mapping[str, Method], keeps: Sequence[float]) -> Loops:
    """The stages, prefill, and prefill of `BATCH` pictures, at each ratio.

    Prefill has loops of its own, and alone it is called `BURST` times behind a call that is not timed: behind another
    stage or another ratio it would find its weights gone from the processor's caches, which costs about a millisecond
    at every ratio and says nothing of the ratio.
    """

    def stages_of(keep: float) -> Callable[[Stopwatch], None]:
        def run(watch: Stopwatch) -> None:
            watch.start()
            encoded = pipeline.encode()
            watch.lap("encode")
            for name, method in methods.items():
                encoded = replace(encoded)  # forgets what a method had computed: each pays for what it reads
                watch.start()
                pipeline.select(encoded, method, keep)
                watch.lap(f"select {name}")
            later_stages(pipeline, encoded, _spread(encoded, keep), watch)

        return run

    def prefill_of(keep: float, pictures: int, stage: str, burst: int) -> Callable[[Stopwatch], None]:
        encoded = pipeline.encode()
        return prefill_case(pipeline, encoded, _spread(encoded, keep), pictures, stage, burst)

    return (
        {keep: stages_of(keep) for keep in keeps},
        {keep: prefill_of(keep, 1, "prefill", BURST) for keep in keeps},
        {keep: prefill_of(keep, BATCH, "prefill batch", 1) for keep in keeps},
    )


def later_stages(pipeline: Pipeline, encoded: EncodedViews, kept: Tensor, watch: Stopwatch) -> None:
    """The laps "project" and "decode", with the prefill between them that `prefill_case` times."""
    watch.start()
    embedded, places = pipeline.project(encoded, kept)
    watch.lap("project")
    cache, logits = pipeline.prefill(embedded, places)
    watch.start()
    pipeline.decode(cache, logits, places[:, -1:])
    watch.lap("decode")


def prefill_case(
    pipeline: Pipeline, encoded: EncodedViews, kept: Tensor, pictures: int, stage: str, burst: int
) -> Callable[[Stopwatch], None]:
    """A prefill of so many pictures as one stage, the mean of `burst` calls behind one that is not timed."""
    embedded, places = pipeline.project(encoded, kept)
    embedded, places = embedded.repeat(pictures, 1, 1), places.repeat(pictures, 1)

    def run(watch: Stopwatch) -> None:
        pipeline.prefill(embedded, places)
        watch.start()
        for _ in range(burst):
            pipeline.prefill(embedded, places)
        watch.lap(stage)
        watch.milliseconds[stage] /= burst

    return run


def _spread(encoded: EncodedViews, keep: float) -> Tensor:
    """As many tokens as the ratio keeps, evenly spread: which ones makes no difference to the time."""
    n = encoded.features.shape[1]
    return torch.linspace(0, n - 1, Budget(keep=keep).count(n)).round().long()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Operations by stage, and bytes of the KV cache and of the peak."""

    encode: int
    project: int
    llm: int
    kv_bytes: int
    peak_bytes: int


def measure_sizes(pipeline: Pipeline, kept_of: Callable[[EncodedViews], Tensor]) -> Sizes:
    """Count what one case takes. kept_of: encoded picture -> (k,) the tokens that enter the language model"""
    encoded = pipeline.encode()
    kept = kept_of(encoded)
    embedded, places = pipeline.project(encoded, kept)
    cache, _ = pipeline.prefill(embedded, places)

    def whole() -> None:
        fresh = pipeline.encode()
        pipeline.prefill(*pipeline.project(fresh, kept))

    return Sizes(
        encode=count_flops(pipeline.encode),
        project=count_flops(pipeline.project, encoded, kept),
        llm=count_flops(pipeline.prefill, embedded, places),
        kv_bytes=kv_bytes(cache),
        peak_bytes=peak_bytes(whole, pipeline.adapter.model.parameters()),
    )


def cost_columns(
    times: Mapping[str, float], sizes: Sizes, *, select: str | None = None, select_flops: int | None = None
) -> CostColumns:
    """Return the columns of one method at one ratio.

    Args:    times: milliseconds by stage   select: its stage of scoring and choosing; None where it has none
    """
    select_ms = None if select is None else times[select]
    stages = (times["encode"], select_ms, times["project"], times["prefill"])
    return CostColumns(
        encode_ms=times["encode"],
        select_ms=select_ms,
        project_ms=times["project"],
        prefill_ms=times["prefill"],
        first_token_ms=sum(stage for stage in stages if stage is not None),
        decode_ms_per_token=times["decode"] / DECODE_STEPS,
        prefill_batch4_ms=times["prefill batch"],
        flops_total=sizes.encode + (select_flops or 0) + sizes.project + sizes.llm,
        flops_llm=sizes.llm,
        flops_vision=sizes.encode,
        flops_scorer=select_flops,
        flops_projector=sizes.project,
        kv_bytes=sizes.kv_bytes,
        peak_bytes=sizes.peak_bytes,
    )
