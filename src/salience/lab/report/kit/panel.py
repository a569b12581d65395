"""One panel of lines: methods against tokens kept or milliseconds, each labelled at its end, with its intervals.

There are two sizes, so that on the page figures stand in two or three columns and stay legible at 350 pixels. Units are
points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from salience.lab.report.kit.method_styles import Style
from salience.lab.report.kit.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: (width, height): for a page's half and for its third
WIDE, SMALL = (376.0, 274.0), (326.0, 256.0)
LEFT, RIGHT, TOP = 36.0, 14.0, 30.0
FONT = 11.0
#: Distance between two labels' middles.
LABEL_GAP = 13.0

RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "salience",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "figure.facecolor": LIGHT["surface"],
    "axes.facecolor": "none",
    "savefig.facecolor": LIGHT["surface"],
    "text.parse_math": False,
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A method's line. x and y go from the largest ratio to the smallest; `low` and `high` bound y where known."""

    method: str
    label: str
    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The horizontal axis: its name, its ticks (position, text) and whether it is logarithmic."""

    label: str
    ticks: tuple[tuple[float, str], ...] = ()
    log: bool = False
    #: (position, text) of ratios that a figure against time shows along its top
    marks: tuple[tuple[float, str], ...] = ()
    #: (position, text) of a bound from below
    floor: tuple[float, str] | None = None


def blank(
    size: tuple[float, float], y_label: str, bottom: float, left: float = LEFT, top: float = TOP
) -> tuple[Figure, Axes]:
    """An empty panel with quiet axes. Call it, and all drawing, inside `matplotlib.rc_context(RC)`."""
    from matplotlib.figure import Figure

    width, height = size
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - RIGHT) / width, (height - bottom - top) / height)
    )
    figure.text(4 / width, 1 - 10 / height, y_label, ha="left", va="center", fontsize=FONT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.set_axisbelow(True)
    return figure, axes


def lines(
    curves: Sequence[Curve],
    scale: Scale,
    y_label: str,
    baselines: Sequence[tuple[str, float]] = (),
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Return the panel. `baselines` are level lines (name, y)."""
    figure, axes = blank(size, y_label, bottom=48.0 if scale.ticks else 34.0)
    reserved = _reserved(curves, size[0] - LEFT - RIGHT)
    _set_limits(axes, curves, scale, [value for _, value in baselines], reserved)
    _frame(axes, scale)
    _baselines(axes, baselines, reserved)
    last = max(x for curve in curves for x in curve.x)
    for number, curve in enumerate(curves):  # apart by points, so that intervals don't hide each other
        shift = (number - (len(curves) - 1) / 2) * 1.6 if scale.log else 0.0
        draw_curve(axes, curve, [x if x == last else _moved(axes, x, shift) for x in curve.x])
    _end_labels(axes, curves)
    return figure


def _reserved(curves: Sequence[Curve], width: float) -> float:
    """Share of the axes' width for the labels of the lines."""
    longest = max(len(curve.label) * (1.09 if curve.style.width > 2 else 1.0) for curve in curves)
    return min(0.45, (longest * FONT * 0.55 + 26) / width)


def _set_limits(axes: Axes, curves: Sequence[Curve], scale: Scale, levels: Sequence[float], reserved: float) -> None:
    xs = [x for curve in curves for x in curve.x]
    ys = [*levels, *(y for curve in curves for y in (*curve.y, *curve.low, *curve.high) if y is not None)]
    if scale.log:
        axes.set_xscale("log")
        start, end = math.log(min(xs)), math.log(max(xs))
    else:
        start, end = min(xs), max(xs)
    span = end - start
    room = 1.04 * (span if span > 1e-9 else 1.0 if scale.log else max(abs(end), 1.0))
    limits = (start - room * reserved / (1 - reserved), start + room)
    axes.set_xlim(*((math.exp(limits[0]), math.exp(limits[1])) if scale.log else limits))
    bottom, top = min(0.0, *ys), max(ys)
    if top - bottom < 1e-9:  # everything is zero: an axis to one says so better than one of rounding errors
        top = bottom + 1
    height = top - bottom
    axes.set_ylim(bottom - (0.04 * height if bottom < 0 else 0), top + (0.14 if scale.marks else 0.06) * height)


def _frame(axes: Axes, scale: Scale) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y", color=LIGHT["grid"], linewidth=0.8)
    axes.set_xlabel(scale.label, labelpad=4)
    if scale.ticks:
        axes.xaxis.set_minor_locator(NullLocator())
        shown = _apart(axes, scale.ticks)
        axes.set_xticks([position for position, _ in shown], [text for _, text in shown], linespacing=1.25)
    else:
        left, right = axes.get_xlim()  # what is below zero is room for the lines' names
        axes.set_xticks([at for at in MaxNLocator(6).tick_values(left, right) if max(left, 0) <= at <= right])
    for position, text in _apart(axes, scale.marks):
        axes.axvline(position, color=LIGHT["grid"], linewidth=0.8, zorder=0.5)
        axes.text(position, axes.get_ylim()[1], text, ha="center", va="top", color=LIGHT["muted"], fontsize=FONT - 1.5)
    left, right = axes.get_xlim()
    if scale.floor is not None and left < scale.floor[0] < right:
        position, text = scale.floor
        axes.axvspan(left, position, color=LIGHT["page"], linewidth=0, zorder=0.4)
        axes.axvline(position, color=LIGHT["line"], linewidth=1, zorder=0.5)
        top = axes.get_ylim()[1]
        axes.text(position, top, text + " ", ha="right", va="top", color=LIGHT["muted"], fontsize=FONT - 1.5)


def _apart(axes: Axes, ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the ticks, from the right, whose texts do not overlap."""
    shown: list[tuple[float, str]] = []
    last = float("inf")
    for position, text in sorted(ticks, reverse=True):
        at = float(axes.transData.transform((position, 0))[0])
        half = max(len(line) for line in text.split("\n")) * FONT * 0.33
        if last - at >= half:
            shown.append((position, text))
            last = at - half - 4
    return shown


def _baselines(axes: Axes, baselines: Sequence[tuple[str, float]], start: float) -> None:
    """Level lines that begin right of the methods' labels."""
    ordered = sorted(baselines, key=lambda item: item[1])
    at = [float(axes.transData.transform((axes.get_xlim()[0], value))[1]) for _, value in ordered]
    crowded = len(at) > 1 and at[1] - at[0] < LABEL_GAP
    below = crowded and at[0] - axes.bbox.y0 > LABEL_GAP  # the lower one's name hangs; at the bottom the other's rises
    for number, (name, value) in enumerate(ordered):
        axes.axhline(value, xmin=start, color=LIGHT["muted"], linewidth=1, dashes=(1, 2), zorder=1)
        hangs = below and number == 0
        away = -2 if hangs else 2 + (LABEL_GAP - (at[1] - at[0]) if crowded and not below and number == 1 else 0)
        axes.annotate(
            f"{name} {value:.2f}", (1, value), xycoords=("axes fraction", "data"), xytext=(0, away),
            textcoords="offset points", ha="right", va="top" if hangs else "bottom", color=LIGHT["muted"],
            fontsize=FONT - 1.5,
        )  # fmt: skip


def draw_curve(axes: Axes, curve: Curve, places: Sequence[float] | None = None) -> None:
    """The line with its markers and intervals. places: x of each point, None for the curve's own"""
    colour, style, x = LIGHT[curve.style.colour], curve.style, curve.x if places is None else places
    for number, (at, low, high) in enumerate(zip(x, curve.low, curve.high, strict=False)):
        if low is not None and high is not None:
            axes.plot([at, at], [low, high], color=colour, linewidth=1.1, alpha=0.55, zorder=2,
                      gid=f"m-{curve.method}--i{number}")  # fmt: skip
    axes.plot(
        x, curve.y, color=colour, linewidth=style.width, dashes=style.dash or (None, None), marker=style.marker,
        markersize=6.5 if style.marker == "*" else 4.6, markeredgecolor=LIGHT["surface"], markeredgewidth=0.6,
        zorder=4 if style.width > 2 else 3, gid=f"m-{curve.method}--line", clip_on=False,
    )  # fmt: skip


def label_places(axes: Axes, curves: Sequence[Curve]) -> list[tuple[float, float, float]]:
    """Return (x, y, y of its label) of each line's last point, in points of the figure.

    A panel is laid out at 72 dots an inch, so that its pixels are points, which hold at any resolution.
    """
    ends = [axes.transData.transform((curve.x[-1], curve.y[-1])) for curve in curves]
    places = spread([float(y) for _, y in ends], LABEL_GAP, float(axes.bbox.y0) + 5, float(axes.bbox.y1) - 5)
    return [(float(x), float(y), place) for (x, y), place in zip(ends, places, strict=True)]


def _moved(axes: Axes, x: float, shift: float) -> float:
    at = axes.transData.transform((x, axes.get_ylim()[0]))
    return float(axes.transData.inverted().transform((at[0] + shift, at[1]))[0])


def _end_labels(axes: Axes, curves: Sequence[Curve]) -> None:
    """Each line's name beside its left end, moved apart where they would overlap, with a thin line between them."""
    edge = min(float(axes.transData.transform((x, curve.y[0]))[0]) for curve in curves for x in curve.x) - 12
    for curve, (x, y, place) in zip(curves, label_places(axes, curves), strict=True):
        colour = LIGHT[curve.style.colour]
        axes.annotate(
            curve.label, (x, y), xycoords="figure points", xytext=(edge - 6, place), textcoords="figure points",
            ha="right", va="center_baseline", color=colour, weight="bold" if curve.style.width > 2 else "normal",
            fontsize=FONT - 0.5, gid=f"m-{curve.method}--label", annotation_clip=False,
        )  # fmt: skip
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate(
            "", (x - 6, y), xycoords="figure points", xytext=(edge - 4, place), textcoords="figure points",
            arrowprops=arrow, annotation_clip=False,
        )  # fmt: skip


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions nearest to the wanted ones, at least `gap` apart, in the same order, within bounds.

    Neighbours that collide share the mean of what they want (isotonic regression of the positions without their gaps).
    Where there is no room for all, the gap shrinks to what fits.
    """
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[list[float]] = []
    for rank, index in enumerate(order):
        blocks.append([wanted[index] - rank * gap])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    bases = [fmean(block) for block in blocks for _ in block]
    top = high - (len(wanted) - 1) * gap
    placed = dict(zip(order, (min(max(base, low), top) + rank * gap for rank, base in enumerate(bases)), strict=True))
    return [placed[index] for index in range(len(wanted))]
