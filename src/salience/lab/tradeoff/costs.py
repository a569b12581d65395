"""Cost columns of a trade-off: by stage where pictures are encoded, else the latency of `generate`.

Ratios and methods are measured interleaved, after a warm-up; times are medians. Stages other than select depend only on
the number of tokens, so they are timed once a ratio and shared by the methods that prune before the language model. For
methods inside the model, choosing is part of prefill and merging part of encode. So their `select_ms` and
`flops_scorer` are null: there is no such stage. `salience profile` tells how the time of `generate` divides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from salience.core.result_object import ResultObject
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.ranking import RankedPictures, works_inside
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.operator_counts import count_flops
from salience.lab.profile.peak_memory import kv_bytes, peak_bytes
from salience.lab.tradeoff.config import TradeoffConfig
from salience.lab.tradeoff.context import RunContext
from salience.lab.tradeoff.methods_under_test import MethodUnderTest
from salience.lab.tradeoff.stage_pipeline import DECODE_STEPS, InsidePipeline, StagePipeline, TimedPrompt
from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget

#: Loops of the timing: the stages, prefill, prefill of a batch.
LOOPS = 3
#: Consecutive calls that a prefill's time is the mean of.
BURST = 3
#: Pictures of a batch whose prefill is timed, too. Alone, a small model waits for its operators to be launched as much
#: as it computes, and the time falls behind the operations. In a batch it follows them.
BATCH = 4


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
#: Name of the stages that methods before the language model share.
_SHARED = ""


def costs(
    context: RunContext, generate: GenerateEvaluator, test: RankedPictures | None, methods: Sequence[MethodUnderTest]
) -> Costs:
    """Measure the first question, in the first process only; methods of the same cost are measured once.

    Args:    generate: for models without measurable stages   test: encoded pictures; their stages are measured
    """
    config, adapter = context.config, context.adapter
    by_cost = {method.cost: method.method.to(adapter.device) for method in methods}
    measured: Callable[..., Costs]
    if test is None:
        measured = partial(_generate_latency, generate, by_cost, config)
        steps = (config.repeats + 1) * len(by_cost) * len(config.keeps)
    else:
        pixels = context.processor.image_processor([test.pictures.samples[0][0].image], return_tensors="pt")
        case = TimedPrompt(
            pixels=pixels["pixel_values"].to(adapter.device, adapter.model.dtype), prompt=test.pictures.prompts[0][0]
        )
        measured = partial(measure_costs, adapter, case, by_cost, config.keeps, repeats=config.repeats)
        steps = rounds(by_cost, config.keeps, config.repeats)
    with context.bars.bar("timing", steps) as tick:

        def columns() -> list[list[Any]]:
            return [[name, keep, found.to_json()] for (name, keep), found in measured(tick=tick).items()]

        stored = context.cache.get("costs", columns)
    return {(name, keep): CostColumns.from_json(found, "costs") for name, keep, found in stored}


def _generate_latency(
    evaluator: GenerateEvaluator, methods: Mapping[str, Method], config: TradeoffConfig, *, tick: Callable[[], object]
) -> Costs:
    """(method, keep) -> first_token_ms and decode_ms_per_token, of the first picture's first question."""
    sample, model = evaluator.groups[0][0], evaluator.model
    inputs = evaluator.inputs(sample.image, [sample.question])

    def generate(tokens: int) -> None:
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def case(method: Method | None, keep: float) -> Callable[[Stopwatch], None]:
        def run(watch: Stopwatch) -> None:
            with evaluator.pruned(method, Budget(keep=keep), 0):
                watch.start()
                generate(1)
                watch.lap("first")
                generate(1 + DECODE_STEPS)
                watch.lap("all")

        return run

    cases = {
        (name, keep): case(method if keep < 1 else None, keep)
        for name, method in methods.items()
        for keep in config.keeps
    }
    with torch.inference_mode():
        found = measure(cases, repeats=config.repeats, warmup=1, device=model.device, tick=tick)
    return {
        key: CostColumns(
            first_token_ms=times["first"], decode_ms_per_token=(times["all"] - times["first"]) / DECODE_STEPS
        )
        for key, times in found.items()
    }


def rounds(methods: Mapping[str, Method], keeps: Sequence[float], repeats: int) -> int:
    """Return how often `measure_costs` calls `tick`."""
    inside = sum(works_inside(type(method)) for method in methods.values())
    return LOOPS * (repeats + 2) * ((len(keeps) if inside < len(methods) else 1) + inside * (len(keeps) - 1))


def measure_costs(
    adapter: Adapter,
    case: TimedPrompt,
    methods: Mapping[str, Method],
    keeps: Sequence[float],
    *,
    repeats: int,
    tick: Callable[[], object] | None = None,
) -> Costs:
    """Return the cost of every (method, keep). Times are medians of `repeats` rounds, everything measured in each.

    keeps: 1 among them; with all tokens all methods take the same time, which is measured once
    tick: called `rounds` times
    """
    before = {name: method for name, method in methods.items() if not works_inside(type(method))}
    inside = {name: method for name, method in methods.items() if name not in before}
    shared = {(_SHARED, keep): StagePipeline(adapter, case, keep) for keep in (keeps if before else (1.0,))}
    own = {(name, keep): InsidePipeline(adapter, case, m, keep) for name, m in inside.items() for keep in keeps}
    timed: dict[tuple[str, float], StagePipeline] = {**shared, **{key: one for key, one in own.items() if key[1] < 1}}
    times: dict[tuple[str, float], dict[str, float]] = {key: {} for key in timed}
    with torch.inference_mode():
        # Prefill has loops of its own, with a call before it that is not timed. Behind another stage or ratio it would
        # find its weights gone from the processor's caches, which costs about a millisecond at every ratio.
        loops = (
            {key: _stages(one, before if key[0] == _SHARED else {}) for key, one in timed.items()},
            {key: _prefill(one, 1, "prefill", BURST) for key, one in timed.items()},
            {key: _prefill(one, BATCH, "prefill batch", 1) for key, one in timed.items()},
        )
        for cases in loops:
            for key, laps in measure(cases, repeats=repeats, device=adapter.device, tick=tick).items():
                times[key].update(laps)
    found = {}
    with torch.no_grad():
        for (_, keep), pipeline in shared.items():
            columns = _columns(pipeline, times[_SHARED, keep])
            for name, method in before.items():
                found[name, keep] = _with_select(columns, pipeline, method, times[_SHARED, keep][f"select {name}"])
        for key, inner in own.items():
            found[key] = _columns(inner, times.get(key, times[_SHARED, 1.0]))
    return found


def _stages(pipeline: StagePipeline, methods: Mapping[str, Method]) -> Callable[[Stopwatch], None]:
    """The laps of all stages but prefill."""

    def run(watch: Stopwatch) -> None:
        watch.start()
        encoded = pipeline.encode()
        watch.lap("encode")
        for name, method in methods.items():
            encoded = replace(encoded)  # without what another method had computed: each pays for what it reads
            watch.start()
            pipeline.select(encoded, method)
            watch.lap(f"select {name}")
        kept = pipeline.kept(encoded)
        watch.start()
        embedded, places = pipeline.project(encoded, kept)
        watch.lap("project")
        cache, logits = pipeline.prefill(embedded, places)
        watch.start()
        pipeline.decode(cache, logits, places[:, -1:])
        watch.lap("decode")

    return run


def _prefill(pipeline: StagePipeline, pictures: int, stage: str, burst: int) -> Callable[[Stopwatch], None]:
    """A prefill of so many pictures as one stage, the mean of `burst` calls after one that is not timed."""
    encoded = pipeline.encode()
    embedded, places = pipeline.project(encoded, pipeline.kept(encoded))
    embedded, places = embedded.repeat(pictures, 1, 1), places.repeat(pictures, 1)

    def run(watch: Stopwatch) -> None:
        pipeline.prefill(embedded, places)
        watch.start()
        for _ in range(burst):
            pipeline.prefill(embedded, places)
        watch.lap(stage)
        watch.milliseconds[stage] /= burst

    return run


def _columns(pipeline: StagePipeline, times: Mapping[str, float]) -> CostColumns:
    """The columns of a pipeline's stages but select."""
    encoded = pipeline.encode()
    kept = pipeline.kept(encoded)
    embedded, places = pipeline.project(encoded, kept)
    cache, _ = pipeline.prefill(embedded, places)
    flops = [
        count_flops(pipeline.encode), count_flops(pipeline.project, encoded, kept),
        count_flops(pipeline.prefill, embedded, places),
    ]  # fmt: skip

    return CostColumns(
        encode_ms=times["encode"],
        project_ms=times["project"],
        prefill_ms=times["prefill"],
        first_token_ms=times["encode"] + times["project"] + times["prefill"],
        decode_ms_per_token=times["decode"] / DECODE_STEPS,
        prefill_batch4_ms=times["prefill batch"],
        flops_total=sum(flops),
        flops_llm=flops[2],
        flops_vision=flops[0],
        flops_projector=flops[1],
        kv_bytes=kv_bytes(cache),
        peak_bytes=peak_bytes(partial(pipeline.first_token, kept), pipeline.adapter.model.parameters()),
    )


def _with_select(columns: CostColumns, pipeline: StagePipeline, method: Method, select_ms: float) -> CostColumns:
    """The columns with one method's stage of scoring and choosing."""
    both = count_flops(lambda: pipeline.select(pipeline.encode(), method))
    flops = both - (columns.flops_vision or 0)
    stages = [columns.encode_ms, select_ms, columns.project_ms, columns.prefill_ms]
    return replace(
        columns,
        select_ms=select_ms,
        first_token_ms=sum(stage for stage in stages if stage is not None),
        flops_scorer=flops,
        flops_total=(columns.flops_total or 0) + flops,
    )
