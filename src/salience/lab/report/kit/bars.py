"""Stacked bars by stage (time, arithmetic) and measured speed-ups beside predicted ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from salience.lab.report.kit.palette import LIGHT
from salience.lab.report.kit.panel import FONT, SMALL, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _TOP, _BOTTOM = 42.0, 52.0, 34.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A stage: its name, its palette role, and one value a bar (None: not measured)."""

    name: str
    colour: str
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A timed stage: its name, palette role and marker, and for each bar the measured and the predicted speed-up."""

    name: str
    colour: str
    marker: str
    measured: tuple[float | None, ...]
    predicted: tuple[float | None, ...]


def stacked(
    names: Sequence[str], stacks: Sequence[Stack], y_label: str, x_label: str, tell: Callable[[float], str]
) -> Figure:
    """Horizontal bars, the first on top, each with its total beside it as `tell` writes it."""
    figure, axes = _rows(names, y_label, x_label)
    ends = [0.0] * len(names)
    for stack in stacks:
        widths = [value or 0.0 for value in stack.values]
        axes.barh(
            range(len(names)), widths, left=ends, height=0.62, color=LIGHT[stack.colour],
            edgecolor=LIGHT["surface"], linewidth=0.6, label=stack.name,
        )  # fmt: skip
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.set_xlim(0, max(ends) * 1.24 or 1)
    for row, end in enumerate(ends):
        axes.annotate(
            tell(end), (end, row), xytext=(4, 0), textcoords="offset points", va="center_baseline", fontsize=FONT - 1
        )
    axes.grid(axis="x", color=LIGHT["grid"], linewidth=0.8)
    _legend(figure)
    return figure


def speedups(names: Sequence[str], pairs: Sequence[Pair], y_label: str, x_label: str) -> Figure:
    """Dots on a logarithmic axis: filled what was measured, hollow what was predicted."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure, axes = _rows(names, y_label, x_label)
    axes.set_xscale("log")
    largest = 1.0
    for number, pair in enumerate(pairs):
        shift = (number - (len(pairs) - 1) / 2) * 0.34
        colour = LIGHT[pair.colour]
        for hollow, values in ((True, pair.predicted), (False, pair.measured)):
            known = [(value, row + shift) for row, value in enumerate(values) if value]
            largest = max([largest, *(value for value, _ in known)])
            axes.plot(
                [value for value, _ in known], [row for _, row in known], linestyle="none", marker=pair.marker,
                markersize=8.5 if hollow else 5, markeredgecolor=colour, markerfacecolor="none" if hollow else colour,
                markeredgewidth=1.2 if hollow else 0, label=f"{pair.name}, {'predicted' if hollow else 'measured'}",
            )  # fmt: skip
        for row, (told, found) in enumerate(zip(pair.predicted, pair.measured, strict=True)):
            if told and found:
                axes.plot([told, found], [row + shift] * 2, color=colour, linewidth=1, alpha=0.6, zorder=1)
    axes.axvline(1, color=LIGHT["line"], linewidth=1)
    axes.set_xlim(0.9, largest * 1.15)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = [tick for tick in (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128) if tick <= largest * 1.1]
    ticks = ticks if largest < 10 else [tick for tick in ticks if tick not in (1.5, 3, 6, 12, 24)]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}\u00d7"))
    axes.grid(axis="x", color=LIGHT["grid"], linewidth=0.8)
    _legend(figure, columns=2)
    return figure


def _rows(names: Sequence[str], y_label: str, x_label: str) -> tuple[Figure, Axes]:
    figure, axes = blank(SMALL, y_label, _BOTTOM, left=_LEFT, top=_TOP)
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(x_label, labelpad=4)
    return figure, axes


def _legend(figure: Figure, columns: int = 3) -> None:
    figure.legend(
        loc="upper left", bbox_to_anchor=(0.0, 1 - 16 / SMALL[1]), ncol=columns, frameon=False, fontsize=FONT - 1.5,
        handlelength=1.0, handleheight=0.8, handletextpad=0.4, columnspacing=1.0, borderaxespad=0.2, labelspacing=0.25,
    )  # fmt: skip
