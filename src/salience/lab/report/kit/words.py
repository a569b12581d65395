"""Numbers as readers like them, and lists as English."""

import math
from collections.abc import Sequence

MINUS = "\u2212"
TIMES = "\u00d7"
DASH = "\u2013"


def share(value: float) -> str:
    """A ratio as per cent, with as many digits as it needs: 0.25 -> '25%', 0.025 -> '2.5%'."""
    return f"{100 * value:.1f}".rstrip("0").rstrip(".") + "%"


def whole_share(value: float) -> str:
    """A ratio as whole per cent; what is small but not nothing reads 'under 1%'."""
    return "under 1%" if 0 < value < 0.01 else f"{100 * value:.0f}%"


def score(value: float) -> str:
    """An accuracy in 0..1, three decimals: two would hide differences that are told in points."""
    return f"{value:.3f}"


def count(value: float) -> str:
    """A whole number with commas: 12345 -> '12,345'."""
    return f"{value:,.0f}"


def points(difference: float) -> str:
    """The size of an accuracy difference in points of a hundred, without its sign."""
    size = f"{abs(100 * difference):.1f}".rstrip("0").rstrip(".")
    return f"{size} point" if size == "1" else f"{size} points"


def points_apart(difference: float, plus: str = "") -> str:
    """An accuracy difference in points with a true minus sign; `plus` stands before what is above zero."""
    text = f"{abs(100 * difference):.1f}"
    return text if float(text) == 0 else (plus if difference > 0 else MINUS) + text


def times(ratio: float) -> str:
    """A speed-up: 3.62 -> '3.6×', 14.2 -> '14×'."""
    return f"{ratio:.0f}{TIMES}" if ratio >= 9.95 else f"{ratio:.1f}{TIMES}"


def pace(ratio: float) -> str:
    """Speed-up in words: "1.7× sooner", "no sooner", "1.3× later"."""
    if ratio >= 1.05:
        return f"{times(ratio)} sooner"
    return "no sooner" if ratio > 1 / 1.05 else f"{times(1 / ratio)} later"


def milliseconds(value: float) -> str:
    """Milliseconds with about two significant digits."""
    if value >= 9.95:
        return f"{value:,.0f} ms"
    return f"{value:.1f} ms" if value >= 0.095 else f"{value:.2g} ms"


def byte_size(value: float) -> str:
    """Bytes in the largest binary unit that leaves at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.1f} {unit}"


def flop_count(value: float) -> str:
    """Floating-point operations in M, G or T."""
    for scale, unit in ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if value >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} FLOP"


def listed(items: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *most, last = items or [""]
    return f"{', '.join(most)} and {last}" if most else last


def ranged(keeps: Sequence[float], all_keeps: Sequence[float]) -> str:
    """Ratios in words: neighbours among `all_keeps` (both descending) are drawn together, '75% to 25%'."""
    order = sorted(set(all_keeps), reverse=True)
    chosen = sorted(set(keeps), reverse=True)
    runs: list[list[float]] = []
    for keep in chosen:
        if runs and order.index(keep) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(keep)
        else:
            runs.append([keep])
    parts: list[str] = []
    for run in runs:
        parts += [f"{share(run[0])} to {share(run[-1])}"] if len(run) > 2 else [share(keep) for keep in run]
    return listed(parts)


def capital(text: str) -> str:
    """The first letter upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def finite(value: object) -> float | None:
    """A number as float, anything else (null, NaN, text, a truth value) as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
