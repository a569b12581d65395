"""Cost of each stage: time, operations, cache and peak bytes of one picture's question, by method and ratio.

Stages other than select depend only on the number of tokens, so they are timed once a ratio and shared by the methods
that prune before the language model. For methods inside the model, choosing is part of prefill and merging part of
encode. So their `select_ms` and `flops_scorer` are null: there is no such stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from salience.core.result_object import ResultObject
from salience.lab.profile.flops import count_flops
from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.peak_memory import kv_bytes, peak_bytes
from salience.lab.tradeoff.stage_pipeline import DECODE_STEPS, InsidePipeline, StagePipeline, TimedPrompt
from salience.vlm.families import Adapter
from salience.vlm.methods.base import Method

#: Loops of the timing: the stages, prefill, prefill of a batch.
LOOPS = 3
#: Consecutive calls that a prefill's time is the mean of.
BURST = 3
#: Pictures of a batch whose prefill is timed, too. Alone, a small model waits for its operators to be launched as much
#: as it computes, and the time falls behind the operations. In a batch it follows them.
BATCH = 4
DEFINITION = (
    "null for methods that work inside the model: what they choose with is part of prefill_ms and flops_llm (between "
    "the language model's layers) or of encode_ms and flops_vision (merging in the tower)"
)


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


def rounds(methods: int, inside: int, keeps: int, repeats: int) -> int:
    """Return how often `measure_costs` calls `tick`."""
    return LOOPS * (repeats + 2) * ((keeps if methods else 1) + inside * (keeps - 1))


def measure_costs(
    adapter: Adapter,
    case: TimedPrompt,
    methods: Mapping[str, Method],
    inside: Mapping[str, Method],
    keeps: Sequence[float],
    *,
    repeats: int,
    tick: Callable[[], object] | None = None,
) -> Costs:
    """Return the cost of every (method, keep). Times are medians of `repeats` rounds, everything measured in each.

    methods: those that prune between the encoder and the projector   inside: those that work inside the model
    keeps: 1 among them; with all tokens all methods take the same time, which is measured once
    tick: called `rounds` times
    """
    shared = {(_SHARED, keep): StagePipeline(adapter, case, keep) for keep in (keeps if methods else (1.0,))}
    own = {(name, keep): InsidePipeline(adapter, case, m, keep) for name, m in inside.items() for keep in keeps}
    timed: dict[tuple[str, float], StagePipeline] = {**shared, **{key: one for key, one in own.items() if key[1] < 1}}
    times: dict[tuple[str, float], dict[str, float]] = {key: {} for key in timed}
    with torch.inference_mode():
        # Prefill has loops of its own, with a call before it that is not timed. Behind another stage or ratio it would
        # find its weights gone from the processor's caches, which costs about a millisecond at every ratio.
        loops = (
            {key: _stages(one, methods if key[0] == _SHARED else {}) for key, one in timed.items()},
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
            for name, method in methods.items():
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
