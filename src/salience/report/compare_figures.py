"""The figures of a comparison: loss and accuracy per epoch, speed and memory against length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from salience.report.compare_view import CompareView
from salience.report.figures import Drawn, saved
from salience.report.palette import LIGHT
from salience.report.panel import FONT, LABEL_GAP, RC, WIDE, Curve, blank, spread
from salience.report.svg import inline
from salience.report.words import finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT = 48.0

# name, title, caption, label of y, curves, dotted levels, whether x is a length (log) or an epoch
_Plan = tuple[str, str, str, str, list[Curve], list[tuple[str, float]], bool]


def draw_compare(view: CompareView, folder: Path, prefix: str) -> dict[str, Drawn]:
    """Draws what the record has columns for and writes each as `<prefix><name>.svg` and `.png`."""
    import matplotlib

    levels = [(name, value) for name, column in (("majority", "majority_accuracy"), ("chance", "chance_accuracy"))
              if (value := view.setting(column)) is not None]  # fmt: skip
    spans = "Lines are means over seeds, bars their range."
    plans: tuple[_Plan, ...] = (
        ("train_loss", "Training loss", f"Nats a target, mean over the epoch. {spans}", "loss, nats",
         _epochs(view, "train_loss"), [], False),
        ("test_accuracy", "Test accuracy", f"On data never trained on. {spans}", "accuracy",
         _epochs(view, "test_accuracy"), levels, False),
        ("throughput", "Inference speed against length", "One sequence read whole by untrained copies, median.",
         "thousand steps a second", _lengths(view, "throughput", "tokens_per_s", 1e-3), [], True),
        ("memory", "Inference memory against length", "The most bytes of tensors alive at once, weights included.",
         "peak memory, MiB", _lengths(view, "throughput", "peak_bytes", 2.0**-20), [], True),
        ("longer", "Accuracy beyond the training's length", f"Trained at {view.config.get('length')} steps. {spans}",
         "accuracy", _lengths(view, "longer", "accuracy", 1.0), levels, True),
    )  # fmt: skip
    made: dict[str, Drawn] = {}
    with matplotlib.rc_context(RC):
        for name, title, caption, label, curves, lines, log in plans:
            if curves:
                svg = saved(_panel(curves, label, lines, log), folder, prefix + name)
                picture = inline(svg, prefix + name, f"Figure: {title}. {caption}")
                made[name] = Drawn(name=prefix + name, title=title, caption=caption, svg=picture)
    return made


def _epochs(view: CompareView, column: str) -> list[Curve]:
    found = []
    for model in view.models:
        each = view.epochs(model, column)
        if each:
            found.append(Curve(
                method=_id(model), label=model, style=view.styles[model], x=tuple(each),
                y=tuple(at.mean for at in each.values()), low=tuple(at.low for at in each.values()),
                high=tuple(at.high for at in each.values()),
            ))  # fmt: skip
    return found


def _lengths(view: CompareView, part: str, column: str, unit: float) -> list[Curve]:
    found = []
    for model in view.models:
        lines = [line for line in view.lines(part) if line.get("model") == model]
        points = [(finite(line.get("length")), finite(line.get(column))) for line in lines]
        known = sorted((x, y * unit) for x, y in points if x and y is not None)
        if known:
            found.append(Curve(
                method=_id(model), label=model, style=view.styles[model], x=tuple(x for x, _ in known),
                y=tuple(y for _, y in known),
            ))  # fmt: skip
    return found


def _id(model: str) -> str:
    return model.replace(":", "-")


def _panel(curves: Sequence[Curve], y_label: str, levels: Sequence[tuple[str, float]], log: bool) -> Figure:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    figure, axes = blank(WIDE, y_label, bottom=34.0, left=_LEFT)
    xs = sorted({x for curve in curves for x in curve.x})
    room = 0.05 + max(len(curve.label) for curve in curves) * FONT * 0.6 / WIDE[0]
    if log:
        axes.set_xscale("log", base=2)
        axes.set_xlim(xs[0] / 1.1, xs[-1] * (max(2.0, xs[-1] / xs[0]) ** (room * 1.4)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(xs[:: 1 + len(xs) // 7])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    else:
        axes.set_xlim(xs[0] - 0.1, xs[-1] + max(1.0, xs[-1] - xs[0]) * room * 1.5)
        axes.set_xticks(xs[:: 1 + len(xs) // 8])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.set_xlabel("steps of the sequence (log scale)" if log else "epoch", labelpad=4)
    top = max([y for curve in curves for y in (*curve.y, *curve.high) if y is not None] + [v for _, v in levels])
    axes.set_ylim(0, top * 1.06 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=LIGHT["grid"], linewidth=0.8)
    for number, (name, value) in enumerate(levels):
        axes.axhline(value, color=LIGHT["muted"], linewidth=1, dashes=(1, 2), zorder=1)
        axes.annotate(f"{name} {value:.2f}", (0.02 + 0.3 * number, value), xycoords=("axes fraction", "data"),
                      xytext=(0, 2), textcoords="offset points", color=LIGHT["muted"], fontsize=FONT - 1.5)  # fmt: skip
    for curve in curves:
        _line(axes, curve)
    _labels(axes, curves)
    return figure


def _line(axes: Axes, curve: Curve) -> None:
    colour = LIGHT[curve.style.colour]
    for number, (x, low, high) in enumerate(zip(curve.x, curve.low, curve.high, strict=False)):
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=colour, linewidth=1.1, alpha=0.55, gid=f"m-{curve.method}--i{number}")
    axes.plot(curve.x, curve.y, color=colour, linewidth=curve.style.width, dashes=curve.style.dash or (None, None),
              marker=curve.style.marker, markersize=4.6, markeredgecolor=LIGHT["surface"], markeredgewidth=0.6,
              zorder=3, gid=f"m-{curve.method}--line", clip_on=False)  # fmt: skip


def _labels(axes: Axes, curves: Sequence[Curve]) -> None:
    ends = [axes.transData.transform((curve.x[-1], curve.y[-1])) for curve in curves]
    places = spread([float(y) for _, y in ends], LABEL_GAP, float(axes.bbox.y0) + 5, float(axes.bbox.y1) - 5)
    for curve, (x, y), place in zip(curves, ends, places, strict=True):
        axes.annotate(curve.label, (float(x), float(y)), xycoords="figure points", xytext=(float(x) + 9, place),
                      textcoords="figure points", va="center_baseline", color=LIGHT[curve.style.colour],
                      fontsize=FONT - 0.5, gid=f"m-{curve.method}--label", annotation_clip=False)  # fmt: skip
