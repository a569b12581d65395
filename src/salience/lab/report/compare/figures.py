"""The figures of a comparison: loss and accuracy per epoch, speed and memory against length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from salience.lab.report.compare.compare_data import CompareData
from salience.lab.report.kit.figure import PageFigure, write_figure
from salience.lab.report.kit.palette import LIGHT
from salience.lab.report.kit.panel import FONT, RC, WIDE, Curve, blank, draw_curve, label_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT = 48.0
#: the figures by epoch: of all models, and of those that differ in their direction alone
EPOCHS: tuple[Literal["train_loss"], Literal["test_accuracy"]] = ("train_loss", "test_accuracy")
PAIR = ("pair_train_loss", "pair_test_accuracy")

_SPANS = "Lines are means over seeds, bars their range."


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A panel. label: of y   levels: dotted lines   by: what x is; a length is logarithmic   log: y is, too."""

    name: str
    title: str
    caption: str
    label: str
    curves: Sequence[Curve]
    levels: Sequence[tuple[str, float]] = ()
    by: Literal["epoch", "length"] = "epoch"
    log: bool = False


def draw_compare(data: CompareData, folder: Path, prefix: str) -> dict[str, PageFigure]:
    """Draw what the record has columns for and write each figure as `<prefix><name>.svg` and `.png`."""
    import matplotlib

    made: dict[str, PageFigure] = {}
    with matplotlib.rc_context(RC):
        for plan in (*_by_epoch(data), *_by_length(data)):
            if plan.curves:
                made[plan.name] = write_figure(_panel(plan), folder, prefix + plan.name, plan.title, plan.caption)
    return made


def _levels(data: CompareData) -> list[tuple[str, float]]:
    """The accuracies of the trivial baselines."""
    named = (("majority", "majority_accuracy"), ("chance", "chance_accuracy"))
    return [(name, value) for name, column in named if (value := data.setting(column)) is not None]


def _by_epoch(data: CompareData) -> list[_Plan]:
    """Loss and accuracy: of the models that differ in their direction alone, and of all where there are others."""
    pairs = data.pairs
    apart = [model for model in data.models if any(model in pair for pair in pairs)]
    ways = {pairs[0][0]: "causal", pairs[0][1]: "non-causal"} if len(pairs) == 1 else {}
    everyone = data.models if len(apart) < len(data.models) else []
    plans: list[_Plan] = []
    for names, models, labels in ((PAIR, apart, ways), (EPOCHS, everyone, {})):
        loss, right = (_epochs(data, column, models, labels) for column in EPOCHS)
        plans += [
            _Plan(name=names[0], title="Training loss", label="loss, nats", curves=loss,
                  caption=f"Nats a target, mean over the epoch. {_SPANS}"),
            _Plan(name=names[1], title="Test accuracy", label="accuracy", curves=right, levels=_levels(data),
                  caption=f"On data never trained on. {_SPANS}"),
        ]  # fmt: skip
    return plans


def _by_length(data: CompareData) -> list[_Plan]:
    trained = data.config.get("length")
    return [
        _Plan(name="throughput", title="Inference speed", label="1,000 tokens a second (log scale)",
              by="length", log=True,
              curves=_lengths(data, "tokens_per_s", 1e-3),
              caption="Untrained copies read one sequence whole, in turn; medians. Higher is better."),
        _Plan(name="memory", title="Inference memory", label="peak memory, MiB (log scale)", by="length", log=True,
              curves=_lengths(data, "peak_bytes", 2.0**-20),
              caption="The most bytes of tensors alive at once, weights included. Lower is better."),
        _Plan(name="longer", title="Accuracy beyond the training\u2019s length", label="accuracy", by="length",
              curves=_lengths(data, "accuracy", 1.0), levels=_levels(data),
              caption=f"Trained at {trained} steps. {_SPANS}"),
    ]  # fmt: skip


def _epochs(
    data: CompareData, column: Literal["train_loss", "test_accuracy"], models: Sequence[str], labels: Mapping[str, str]
) -> list[Curve]:
    return [
        Curve(
            method=_id(model), label=labels.get(model, model), style=data.styles[model], x=tuple(each),
            y=tuple(at.mean for at in each.values()), low=tuple(at.low for at in each.values()),
            high=tuple(at.high for at in each.values()),
        )
        for model in models
        if (each := data.epochs(model, column))
    ]  # fmt: skip


def _lengths(data: CompareData, column: Literal["tokens_per_s", "peak_bytes", "accuracy"], unit: float) -> list[Curve]:
    return [
        Curve(
            method=_id(model), label=model, style=data.styles[model], x=tuple(each),
            y=tuple(value * unit for value in each.values()),
        )
        for model in data.models
        if (each := data.by_length(model, column))
    ]  # fmt: skip


def _id(model: str) -> str:
    return model.replace(":", "-")


def _panel(plan: _Plan) -> Figure:
    figure, axes = blank(WIDE, plan.label, bottom=34.0, left=_LEFT)
    _across(axes, plan)
    _upwards(axes, plan)
    axes.grid(axis="y", color=LIGHT["grid"], linewidth=0.8)
    for number, (name, value) in enumerate(plan.levels):
        axes.axhline(value, color=LIGHT["muted"], linewidth=1, dashes=(1, 2), zorder=1)
        axes.annotate(f"{name} {value:.2f}", (0.02 + 0.3 * number, value), xycoords=("axes fraction", "data"),
                      xytext=(0, 2), textcoords="offset points", color=LIGHT["muted"], fontsize=FONT - 1.5)  # fmt: skip
    for curve in plan.curves:
        draw_curve(axes, curve)
    _labels(axes, plan.curves)
    return figure


def _across(axes: Axes, plan: _Plan) -> None:
    """Epochs or lengths, with room on the right for the lines' names."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    xs = sorted({x for curve in plan.curves for x in curve.x})
    room = (max(len(curve.label) for curve in plan.curves) * FONT * 0.58 + 14) / (WIDE[0] - _LEFT)
    room /= 1 - room
    if plan.by == "length":
        axes.set_xscale("log", base=2)
        axes.set_xlim(xs[0] / 1.1, xs[-1] * max(2.0, xs[-1] / xs[0]) ** room)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(xs[:: 1 + len(xs) // 7])
    else:
        axes.set_xlim(xs[0] - 0.1, xs[-1] + max(1.0, xs[-1] - xs[0]) * room)
        axes.set_xticks(xs[:: 1 + len(xs) // 8])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_xlabel("steps of the sequence (log scale)" if plan.by == "length" else "epoch", labelpad=4)


def _upwards(axes: Axes, plan: _Plan) -> None:
    """From nothing on; a logarithmic axis from a little below the least, with ticks that one can read off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ys = [y for curve in plan.curves for y in (*curve.y, *curve.high) if y is not None]
    if not plan.log:
        axes.set_ylim(0, max([*ys, *(value for _, value in plan.levels)]) * 1.06 or 1)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        return
    axes.set_yscale("log")
    axes.set_ylim(min(ys) / 1.2, max(ys) * 1.2)
    wide = max(ys) > 40 * min(ys)
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0) if wide else (1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}"))


def _labels(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve, (x, y, place) in zip(curves, label_places(axes, curves), strict=True):
        axes.annotate(curve.label, (x, y), xycoords="figure points", xytext=(x + 9, place),
                      textcoords="figure points", va="center_baseline", color=LIGHT[curve.style.colour],
                      fontsize=FONT - 0.5, gid=f"m-{curve.method}--label", annotation_clip=False)  # fmt: skip
