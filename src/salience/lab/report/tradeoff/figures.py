"""The figures of a trade-off: each a panel with a title, a caption written from its numbers, and two files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from salience.lab.report.kit.bars import Pair, Stack, speedups, stacked
from salience.lab.report.kit.figure import PageFigure, write_figure
from salience.lab.report.kit.method_styles import drawn, role, styles, title
from salience.lab.report.kit.panel import RC, SMALL, WIDE, Curve, Scale, lines
from salience.lab.report.kit.words import flop_count, milliseconds, share
from salience.lab.report.tradeoff import captions
from salience.lab.report.tradeoff.cost_findings import FIRST_TOKEN, PREFILL
from salience.lab.report.tradeoff.tradeoff_data import Point, TradeoffData, kind_column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: column, name, palette role of the stages of the time to the first token and to the next one
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
Measure = Callable[[Point], float | None]
#: The ends of a point's bar around its plotted value.
Bar = Callable[[Point, float], tuple[float | None, float | None]]
Draw = Callable[[TradeoffData], "Figure | None"]


class FigurePlan(NamedTuple):
    """A figure to be drawn: `draw` returns it, or None where its columns were not measured."""

    name: str
    title: str
    caption: Callable[[TradeoffData], str]
    draw: Draw


def draw_all(data: TradeoffData, folder: Path, prefix: str) -> dict[str, PageFigure]:
    """Write each figure with measured columns as `<prefix><name>.svg` and `.png`, and return them by name."""
    import matplotlib

    made: dict[str, PageFigure] = {}
    with matplotlib.rc_context(RC):
        for plan in [*FIGURES, *(_kind_figure(kind) for kind in data.kinds)]:
            figure = plan.draw(data)
            if figure is not None:
                made[plan.name] = write_figure(figure, folder, prefix + plan.name, plan.title, plan.caption(data))
    return made


def curves(data: TradeoffData, x: Measure, y: Measure, bar: Bar, few: bool = False) -> list[Curve]:
    """Return the lines of the methods for which both quantities are known.

    few: without controls, and of the oracles only that of all items
    """
    looks, made = styles(data.methods), []
    best = [point.method for keep in data.pruned if (point := data.best_free(keep)) is not None]
    main = [m for m in data.methods if not few or m == "oracle" or role(m) in ("learned", "free")]
    for method in drawn(main, most=7 if few else 9, best=best):
        line = data.line(method)
        known = [(p, a, b) for p in line if (a := x(p)) is not None and (b := y(p)) is not None]
        if not known or (data.pruned and all(point.keep == 1 for point, *_ in known)):
            continue  # a line needs a place where its method was measured
        bars = [bar(point, b) for point, _, b in known]
        made.append(Curve(
            method=method, label=title(method), style=looks[method], x=tuple(a for _, a, _ in known),
            y=tuple(b for *_, b in known), low=tuple(low for low, _ in bars), high=tuple(high for _, high in bars),
        ))  # fmt: skip
    return made


def _interval(point: Point, value: float) -> tuple[float | None, float | None]:
    return point.low, point.high


def _seed_range(column: str, scale: float = 1.0) -> Bar:
    """The range of the seeds' values, times `scale`, around the plotted value."""

    def bar(point: Point, value: float) -> tuple[float | None, float | None]:
        seeds, mean = point.each.get(column, ()), point.get(column)
        if mean is None or len(seeds) < 2:
            return None, None
        low, high = sorted(value + scale * (seed - mean) for seed in (min(seeds), max(seeds)))
        return low, high

    return bar


def _column(column: str) -> Measure:
    return lambda point: point.get(column)


def _against_tokens(
    data: TradeoffData, y: Measure, y_label: str, bar: Bar, levels: Sequence[tuple[str, float]] = (), small: bool = True
) -> Figure | None:
    """Lines against the tokens kept, on a logarithmic axis with the ratio under each tick."""
    found = curves(data, lambda point: data.tokens(point.keep), y, bar, few=small)
    ticks = [(tokens, f"{tokens:.0f}\n{share(keep)}") for keep in data.keeps if (tokens := data.tokens(keep))]
    scale = Scale(label="visual tokens kept (log scale)", ticks=tuple(ticks), log=True)
    return lines(found, scale, y_label, levels, size=SMALL if small else WIDE) if found else None


def _against_time(data: TradeoffData, y: Measure, y_label: str, bar: Bar) -> Figure | None:
    found = curves(data, _column("first_token_ms"), y, bar, few=True)
    marks = [(ms, share(p.keep)) for p in data.line(data.subject) if (ms := p.get("first_token_ms")) is not None]
    floor = None if data.tower_ms is None else (data.tower_ms, "tower alone")
    scale = Scale(label="time to the first token, ms", marks=tuple(marks), floor=floor)
    return lines(found, scale, y_label) if found else None


def _accuracy_latency(data: TradeoffData) -> Figure | None:
    return _against_time(data, _column("accuracy"), "answer accuracy", _interval)


def _accuracy_tokens(data: TradeoffData) -> Figure | None:
    y_label = "answer accuracy, 95% intervals"
    return _against_tokens(data, _column("accuracy"), y_label, _interval, _levels(data), small=False)


def _levels(data: TradeoffData, kind: str | None = None) -> list[tuple[str, float]]:
    return [(name.removesuffix(" answer"), value) for name, value in data.baselines(kind)]


def _loss(panel: Callable[..., Figure | None], data: TradeoffData) -> Figure | None:
    """The information loss in points of a hundred, where the probe reads enough."""
    bar = _seed_range("probe_accuracy", -100.0)

    def lost(point: Point) -> float | None:
        loss = data.loss(point.method, point.keep)
        return None if loss is None else 100 * loss

    return panel(data, lost, "points that the probe loses", bar) if data.probe_reads else None


def _inside(column: str, title: str, label: str, meaning: str, digits: int) -> FigurePlan:
    caption = partial(captions.inside, text=meaning, column=column, digits=digits)
    return FigurePlan(
        column, title, caption, lambda data: _against_tokens(data, _column(column), label, _seed_range(column))
    )


def _kind(data: TradeoffData, kind: str) -> Figure | None:
    column = kind_column(kind)
    return _against_tokens(data, _column(column), f"accuracy, {kind}", _seed_range(column), _levels(data, kind))


def _kind_figure(kind: str) -> FigurePlan:
    caption, draw = partial(captions.kind, name=kind), partial(_kind, kind=kind)
    return FigurePlan("kind_" + kind.replace("-", "_"), captions.kind_title(kind), caption, draw)


def _time_stages(data: TradeoffData) -> Figure | None:
    each = [(name, colour, [data.own(keep, column) for keep in data.keeps]) for column, name, colour in TIME_STAGES]
    return _stacked(data, each, "median ms by stage", "ms", milliseconds, 1.0)


def _flop_stages(data: TradeoffData) -> Figure | None:
    """The arithmetic by stage; where the stages were not counted, the language model and all before it."""
    each = [(name, colour, [data.own(keep, column) for keep in data.keeps]) for column, name, colour in FLOP_STAGES]
    if data.full("flops_vision") is None:
        totals = [(data.own(keep, "flops_total"), data.own(keep, "flops_llm")) for keep in data.keeps]
        before = [None if total is None or model is None else total - model for total, model in totals]
        each = [("before the language model", "stage-encode", before), each[-1]]
    return _stacked(data, each, "arithmetic by stage, GFLOP", "GFLOP to the first token", flop_count, 1e9)


def _stacked(
    data: TradeoffData,
    stages: Sequence[tuple[str, str, Sequence[float | None]]],
    y_label: str,
    x_label: str,
    tell: Callable[[float], str],
    unit: float,
) -> Figure | None:
    stacks = [
        Stack(name=name, colour=colour, values=tuple(None if value is None else value / unit for value in values))
        for name, colour, values in stages
        if any(value is not None for value in values)
    ]
    names = [share(keep) for keep in data.keeps]
    return stacked(names, stacks, y_label, x_label, lambda value: tell(value * unit)) if stacks else None


def _speedups(data: TradeoffData) -> Figure | None:
    pairs = []
    for stage in (PREFILL, FIRST_TOKEN):
        measured, predicted = (
            tuple(data.ratio(data.subject, keep, column) for keep in data.pruned) for column in (stage.ms, stage.flops)
        )
        if any(measured):
            pairs.append(
                Pair(name=stage.name, colour=stage.colour, marker=stage.marker, measured=measured, predicted=predicted)
            )
    names = [share(keep) for keep in data.pruned]
    return speedups(names, pairs, "how many times faster", "against all tokens (log scale)") if pairs else None


FIGURES = (
    FigurePlan("loss_latency", "Information loss against the time to the first token", captions.loss_latency,
               partial(_loss, _against_time)),
    FigurePlan("accuracy_latency", "Accuracy against the time to the first token", captions.accuracy_latency,
               _accuracy_latency),
    FigurePlan("accuracy_tokens", "Accuracy against tokens kept", captions.accuracy_tokens, _accuracy_tokens),
    FigurePlan("loss_tokens", "Information loss against tokens kept", captions.loss_tokens,
               partial(_loss, partial(_against_tokens, small=False))),
    FigurePlan("time_stages", "Time by stage", captions.time_stages, _time_stages),
    FigurePlan("flop_stages", "Arithmetic by stage", captions.flop_stages, _flop_stages),
    FigurePlan("speedups", "Speed-up, measured and predicted", captions.speedups, _speedups),
    _inside("answer_kl", "Change of the answers\u2019 distribution", "KL(full || pruned), nats",
            "KL divergence of the answer\u2019s tokens from the unpruned model; 0 is the same.", 2),
    _inside("feature_cosine", "Similarity to the full picture\u2019s features", "cosine of mean features",
            "Cosine of the kept tokens\u2019 mean and the mean of all tokens; 1 is the same direction.", 3),
    _inside("saliency_mass", "Share of the model\u2019s own attention kept", "share of attention kept",
            "Share of the unpruned model\u2019s text-to-image attention; one reference for all methods.", 2),
)  # fmt: skip
