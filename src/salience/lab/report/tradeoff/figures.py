"""The figures of a trade-off: each a panel with a title, a caption written from its numbers, and two files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from salience.core.files import write_atomic
from salience.lab.report.kit.bars import Pair, Stack, speedups, stacked
from salience.lab.report.kit.method_styles import drawn, role, styles, title
from salience.lab.report.kit.panel import RC, SMALL, Curve, Scale, lines
from salience.lab.report.kit.svg import inline, standalone
from salience.lab.report.kit.words import flop_count, milliseconds, share
from salience.lab.report.tradeoff import captions
from salience.lab.report.tradeoff.tradeoff_data import Point, TradeoffData, kind_column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: column, name, palette role of what the time to the first token and the next one consist of
TIME_STAGES = (
    ("encode_ms", "encode", "stage-encode"),
    ("select_ms", "select", "stage-select"),
    ("project_ms", "project", "stage-project"),
    ("prefill_ms", "prefill", "stage-prefill"),
    ("decode_ms_per_token", "decode one", "stage-decode"),
)
FLOP_STAGES = (
    ("flops_vision", "vision tower", "stage-encode"),
    ("flops_scorer", "scorer", "stage-select"),
    ("flops_projector", "projector", "stage-project"),
    ("flops_llm", "language model", "stage-prefill"),
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure on the page: its file's name, title, caption, and the inline SVG (safe markup)."""

    name: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A figure to be drawn: `draw` returns it, or None when its columns were not measured."""

    name: str
    title: str
    caption: Callable[[TradeoffData], str]
    draw: Callable[[TradeoffData], Figure | None]


def draw_all(data: TradeoffData, folder: Path, prefix: str) -> dict[str, Drawn]:
    """Draws what the record has columns for and writes each as `<prefix><name>.svg` and `.png`.

    Returns: the figures by name (without the prefix); those whose columns are null are missing
    """
    import matplotlib

    made: dict[str, Drawn] = {}
    with matplotlib.rc_context(RC):
        for plan in [*PLANS, *(_kind_plan(kind) for kind in data.kinds)]:
            figure = plan.draw(data)
            if figure is None:
                continue
            svg = saved(figure, folder, prefix + plan.name)
            caption = plan.caption(data)
            picture = inline(svg, prefix + plan.name, f"Figure: {plan.title}. {caption}")
            made[plan.name] = Drawn(name=prefix + plan.name, title=plan.title, caption=caption, svg=picture)
    return made


def saved(figure: Figure, folder: Path, name: str) -> str:
    """Writes `<name>.svg` and `.png`. Returns: the SVG as matplotlib wrote it."""
    text, raster = io.StringIO(), io.BytesIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    figure.savefig(raster, format="png", dpi=180)
    write_atomic(folder / f"{name}.svg", standalone(text.getvalue()))
    write_atomic(folder / f"{name}.png", raster.getvalue())
    return text.getvalue()


Measure = Callable[[Point], float | None]


def curves(
    data: TradeoffData,
    x: Measure,
    y: Measure,
    bounds: bool = False,
    column: str = "",
    scale: float = 1.0,
    few: bool = False,
) -> list[Curve]:
    """The methods' lines for which both quantities are known.

    bounds: with the accuracy's intervals   column: with the range of its seeds, times `scale`   few: main methods only
    """
    looks, made = styles(data.methods), []
    best = [point.method for keep in data.pruned if (point := data.best_free(keep)) is not None]
    for method in drawn([m for m in data.methods if not few or _main(m)], most=7 if few else 9, best=best):
        known = [
            (point, a, b) for point in data.line(method) if (a := x(point)) is not None and (b := y(point)) is not None
        ]
        if not known or (data.pruned and all(point.keep == 1 for point, *_ in known)):
            continue  # a line needs a place where its method was measured
        low: tuple[float | None, ...] = tuple(point.low for point, *_ in known) if bounds else ()
        high: tuple[float | None, ...] = tuple(point.high for point, *_ in known) if bounds else ()
        if column:
            each = [(value, point.each.get(column, ())) for point, _, value in known]
            full = [point.get(column) for point, *_ in known]
            ranges = [_seed_range(value, mean, seeds, scale) for (value, seeds), mean in zip(each, full, strict=True)]
            low, high = tuple(low for low, _ in ranges), tuple(high for _, high in ranges)
        x_values, y_values = tuple(a for _, a, _ in known), tuple(b for *_, b in known)
        made.append(
            Curve(method=method, label=title(method), style=looks[method], x=x_values, y=y_values, low=low, high=high)
        )
    return made


def _main(method: str) -> bool:
    """Whether small figures show it: neither controls nor oracles other than that of all items."""
    return method == "oracle" or role(method) in ("learned", "free")


def _seed_range(
    value: float, mean: float | None, seeds: Sequence[float], scale: float
) -> tuple[float | None, float | None]:
    """The range that seeds differ by, laid around the plotted value."""
    if mean is None or len(seeds) < 2:
        return None, None
    ends = sorted(value + scale * (seed - mean) for seed in (min(seeds), max(seeds)))
    return ends[0], ends[1]


def token_scale(data: TradeoffData) -> Scale:
    """Tokens kept, logarithmic, with the ratio under each tick."""
    ticks = [(tokens, f"{tokens:.0f}\n{share(keep)}") for keep in data.keeps if (tokens := data.tokens(keep))]
    return Scale(label="visual tokens kept (log scale)", ticks=tuple(ticks), log=True)


def time_scale(data: TradeoffData) -> Scale:
    """Milliseconds to the first token, the subject's ratios along the top and the vision tower's time as a bound."""
    marks = [
        (ms, share(point.keep)) for point in data.line(data.subject) if (ms := point.get("first_token_ms")) is not None
    ]
    floor = None if data.tower_ms is None else (data.tower_ms, "tower alone")
    return Scale(label="time to the first token, ms", marks=tuple(marks), floor=floor)


def _tokens(data: TradeoffData) -> Measure:
    return lambda point: data.tokens(point.keep)


def _lost(data: TradeoffData) -> Measure:
    """The information loss in points."""

    def measure(point: Point) -> float | None:
        loss = data.loss(point.method, point.keep)
        return None if loss is None else 100 * loss

    return measure


def _loss_latency(data: TradeoffData) -> Figure | None:
    if not data.probe_reads:
        return None
    found = curves(
        data, lambda p: p.get("first_token_ms"), _lost(data), few=True, column="probe_accuracy", scale=-100.0
    )
    return lines(found, time_scale(data), "points that the probe loses") if found else None


def _accuracy_latency(data: TradeoffData) -> Figure | None:
    found = curves(data, lambda p: p.get("first_token_ms"), lambda p: p.accuracy, bounds=True, few=True)
    return lines(found, time_scale(data), "answer accuracy") if found else None


def _accuracy_tokens(data: TradeoffData) -> Figure | None:
    found = curves(data, _tokens(data), lambda p: p.accuracy, bounds=True)
    named = (("question only", "question_only_accuracy"), ("majority", "majority_accuracy"))
    levels = [(name, value) for name, column in named if (value := data.setting(column)) is not None]
    return lines(found, token_scale(data), "answer accuracy, 95% intervals", levels) if found else None


def _loss_tokens(data: TradeoffData) -> Figure | None:
    if not data.probe_reads:
        return None
    found = curves(data, _tokens(data), _lost(data), column="probe_accuracy", scale=-100.0)
    return lines(found, token_scale(data), "points that the probe loses") if found else None


def _against_tokens(column: str, label: str) -> Callable[[TradeoffData], Figure | None]:
    def draw(data: TradeoffData) -> Figure | None:
        found = curves(data, _tokens(data), lambda p: p.get(column), column=column, few=True)
        return lines(found, token_scale(data), label, size=SMALL) if found else None

    return draw


def _kind_plan(kind: str) -> Plan:
    column = kind_column(kind)

    def draw(data: TradeoffData) -> Figure | None:
        found = curves(data, _tokens(data), lambda p: p.get(column), column=column, few=True)
        named = (("question only", "question_only_by_kind"), ("majority", "majority_by_kind"))
        levels = [(name, value) for name, table in named if (value := data.kind_line(kind, table)) is not None]
        return lines(found, token_scale(data), f"accuracy, {kind}", levels, size=SMALL) if found else None

    return Plan(
        name="kind_" + kind.replace("-", "_"),
        title=captions.kind_title(kind),
        caption=lambda data: captions.kind(data, kind),
        draw=draw,
    )


def _time_stages(data: TradeoffData) -> Figure | None:
    return _stages(data, TIME_STAGES, "median ms by stage", "ms", milliseconds, 1.0)


def _flop_stages(data: TradeoffData) -> Figure | None:
    stages: Sequence[tuple[str, str, str]] = FLOP_STAGES
    if data.full("flops_vision") is None:
        stages = (("flops_before", "before the language model", "stage-encode"), FLOP_STAGES[-1])
    return _stages(data, stages, "arithmetic by stage, GFLOP", "GFLOP to the first token", flop_count, 1e9)


def _stages(
    data: TradeoffData,
    stages: Sequence[tuple[str, str, str]],
    y_label: str,
    x_label: str,
    tell: Callable[[float], str],
    unit: float,
) -> Figure | None:
    stacks = []
    for column, name, colour in stages:
        values = [stage_value(data, keep, column) for keep in data.keeps]
        if any(value is not None for value in values):
            scaled = tuple(None if value is None else value / unit for value in values)
            stacks.append(Stack(name=name, colour=colour, values=scaled))
    if not stacks:
        return None
    return stacked([share(keep) for keep in data.keeps], stacks, y_label, x_label, lambda value: tell(value * unit))


def stage_value(data: TradeoffData, keep: float, column: str) -> float | None:
    """The subject's column; `flops_before` is all arithmetic before the language model."""
    if column != "flops_before":
        return data.value(data.subject, keep, column)
    total, model = (data.value(data.subject, keep, name) for name in ("flops_total", "flops_llm"))
    return None if total is None or model is None else total - model


def _speedups(data: TradeoffData) -> Figure | None:
    pairs = []
    for name, colour, marker, clock, flops in (
        ("prefill", "blue", "o", "prefill_ms", "flops_llm"),
        ("first token", "orange", "s", "first_token_ms", "flops_total"),
    ):
        measured = tuple(data.ratio(data.subject, keep, clock) for keep in data.pruned)
        predicted = tuple(data.ratio(data.subject, keep, flops) for keep in data.pruned)
        if any(measured):
            pairs.append(Pair(name=name, colour=colour, marker=marker, measured=measured, predicted=predicted))
    names = [share(keep) for keep in data.pruned]
    return (
        speedups(names, pairs, "how many times faster", "against all tokens (log scale)") if pairs and names else None
    )


PLANS = (
    Plan(
        name="loss_latency", title="Information loss against the time to the first token",
        caption=captions.loss_latency, draw=_loss_latency,
    ),
    Plan(
        name="accuracy_latency", title="Accuracy against the time to the first token",
        caption=captions.accuracy_latency, draw=_accuracy_latency,
    ),
    Plan(
        name="accuracy_tokens", title="Accuracy against tokens kept",
        caption=captions.accuracy_tokens, draw=_accuracy_tokens,
    ),
    Plan(
        name="loss_tokens", title="Information loss against tokens kept",
        caption=captions.loss_tokens, draw=_loss_tokens,
    ),
    Plan(name="time_stages", title="Where the time goes", caption=captions.time_stages, draw=_time_stages),
    Plan(name="flop_stages", title="Where the arithmetic goes", caption=captions.flop_stages, draw=_flop_stages),
    Plan(name="speedups", title="Speed-up, measured and predicted", caption=captions.speedups, draw=_speedups),
    Plan(
        name="answer_kl", title="How far the answers' distribution moves", caption=captions.answer_kl,
        draw=_against_tokens("answer_kl", "KL(full || pruned), nats"),
    ),
    Plan(
        name="feature_cosine", title="How like the full picture's features", caption=captions.feature_cosine,
        draw=_against_tokens("feature_cosine", "cosine of mean features"),
    ),
    Plan(
        name="saliency_mass", title="Share of the model's own attention kept", caption=captions.saliency_mass,
        draw=_against_tokens("saliency_mass", "share of attention kept"),
    ),
)  # fmt: skip
