"""Panels, labels, and SVG that can stand in a page."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as some
from matplotlib.backends.backend_agg import FigureCanvasAgg

from salience.lab.report.kit.figure import inline
from salience.lab.report.kit.method_styles import Style
from salience.lab.report.kit.panel import RC, Curve, Scale, lines, spread
from salience.lab.report.tradeoff import captions
from salience.lab.report.tradeoff.figures import draw_all
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

Make = Callable[..., TradeoffData]


@given(some.lists(some.floats(0, 200), max_size=12))
def test_labels_stay_apart_in_order_and_inside(wanted: list[float]) -> None:
    placed = spread(wanted, 13.0, 0.0, 200.0)
    gap = min(13.0, 200.0 / max(len(wanted) - 1, 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    # half a point is less than anyone sees; the sums of up to twelve gaps are not exact
    assert all(placed[b] - placed[a] >= gap - 0.5 for a, b in pairwise(order))
    assert all(-0.5 <= place <= 200.5 for place in placed)


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread([10, 50, 90], 13.0, 0.0, 100.0) == [10, 50, 90]


def test_colliding_labels_share_their_middle() -> None:
    assert spread([50, 50], 12.0, 0.0, 100.0) == [44, 56]


def test_inline_svg_has_theme_colours_and_ids_of_its_own() -> None:
    raw = (
        '<?xml version=\'1.0\'?><svg xmlns:xlink=\'x\' width="9pt" height="9pt" viewBox="0 0 9 9" '
        'xmlns="http://www.w3.org/2000/svg" version="1.1"><metadata>http://purl.org/x</metadata><g id="m-random--line">'
        '<path id="p1" style="fill: #191b1f"/><use xlink:href="#p1" clip-path="url(#c)"/></g></svg>'
    )
    made = inline(raw, "kl", 'a < b & "c"')
    assert made.startswith('<svg role="img" aria-label="a &lt; b &amp; &quot;c&quot;"')
    assert "http" not in made
    assert 'data-m="random"' in made
    assert 'id="kl-p1"' in made
    assert 'href="#kl-p1"' in made
    assert "url(#kl-c)" in made
    assert "var(--ink)" in made
    assert 'width="9pt"' not in made


def test_labels_stay_inside_at_any_resolution() -> None:
    style = Style(colour="blue", marker="o")
    curves = [
        Curve(method=name, label=name, style=style, x=(100.0, 10.0), y=(1.0, 0.5)) for name in ("first", "second")
    ]
    scale = Scale(label="tokens", ticks=((10.0, "10"), (100.0, "100")), log=True)
    with matplotlib.rc_context(RC):
        figure = lines(curves, scale, "accuracy")
        for dpi in (72, 180):
            figure.set_dpi(dpi)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            axes = figure.axes[0].get_window_extent()
            for label in [text for text in figure.axes[0].texts if text.get_text() in ("first", "second")]:
                box = label.get_window_extent(canvas.get_renderer())
                assert axes.x0 < box.x0 < box.x1 < axes.x1
                assert axes.y0 < box.y0 < box.y1 < axes.y1


def test_only_what_was_measured_is_drawn(view_of: Make, tmp_path: Path) -> None:
    data = view_of(
        {"saliency": (0.9, 0.9, 0.8), "random": (0.9, 0.8, 0.4)}, columns={"tokens_kept": {"saliency": (9, 5, 1)}}
    )
    drawn = draw_all(data, tmp_path, "x_")
    assert list(drawn) == ["accuracy_tokens"]
    assert {path.name for path in tmp_path.iterdir()} == {"x_accuracy_tokens.svg", "x_accuracy_tokens.png"}
    svg = (tmp_path / "x_accuracy_tokens.svg").read_text()
    assert "learned saliency" in svg
    assert "#191b1f" in svg  # a file of its own has colours, not variables
    assert "var(" not in svg


@pytest.mark.parametrize("values", [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0)])
def test_flat_lines_are_drawn(view_of: Make, tmp_path: Path, values: tuple[float, ...]) -> None:
    data = view_of({"random": values}, columns={"tokens_kept": {"random": (9, 5, 1)}})
    assert "accuracy_tokens" in draw_all(data, tmp_path, "")


def test_a_single_ratio_is_drawn(view_of: Make, tmp_path: Path) -> None:
    columns = {name: {"saliency": (5.0,)} for name in ("tokens_kept", "first_token_ms", "encode_ms", "prefill_ms")}
    data = view_of({"saliency": (0.9,)}, keeps=(1.0,), columns=columns)
    assert {"accuracy_tokens", "accuracy_latency", "time_stages"} <= set(draw_all(data, tmp_path, ""))


def test_lines_say_which_method_they_are(view_of: Make, tmp_path: Path) -> None:
    data = view_of({"cls-attention": (0.9, 0.9, 0.8)}, columns={"tokens_kept": {"cls-attention": (9, 5, 1)}})
    svg = draw_all(data, tmp_path, "")["accuracy_tokens"].svg
    assert re.search(r'data-m="cls-attention"', svg)


def test_nothing_is_said_to_take_less_than_no_time(view_of: Make, tmp_path: Path) -> None:
    """A long name and a short time: the room for the name would begin at -60."""
    columns = {"first_token_ms": {"cls-attention": (260.0, 140.0, 9.0)}, "encode_ms": {"cls-attention": (5.0,) * 3}}
    data = view_of({"cls-attention": (0.9, 0.9, 0.8)}, columns=columns)
    svg = draw_all(data, tmp_path, "")["accuracy_latency"].svg
    numbers = [float(text.replace("\u2212", "-")) for text in re.findall(r">([-\u2212]?\d+)</text>", svg)]
    assert numbers and min(numbers) >= 0 and max(numbers) > 200


def test_the_tower_is_as_quick_as_merging_in_it_makes_it(view_of: Make) -> None:
    def told(flops: tuple[float, ...]) -> tuple[float | None, str]:
        columns = {
            "first_token_ms": {"tome": (260.0, 140.0, 60.0)}, "encode_ms": {"tome": (100.0, 60.0, 40.0)},
            "flops_vision": {"tome": flops},
        }  # fmt: skip
        data = view_of({"tome": (0.9, 0.9, 0.8)}, columns=columns)
        return data.tower_ms, captions.loss_latency(data)

    assert told((4e9, 4e9, 4e9))[0] == 100  # without merging the rest is the clock's
    quickest, caption = told((4e9, 2e9, 1e9))
    assert quickest == 40 and "40 ms at least, where tokens are merged in it" in caption


@pytest.mark.parametrize("values", [(0.07, 0.07), (0.33, 0.33), (0.0, 0.02)])
def test_names_of_level_lines_stay_apart(values: tuple[float, float]) -> None:
    curve = Curve(method="random", label="random", style=Style(colour="blue", marker="o"), x=(1, 2), y=(0.9, 1))
    with matplotlib.rc_context(RC):
        levels = [*zip(("question only", "majority"), values, strict=True)]
        figure = lines([curve], Scale(label="x"), "y", levels, (300.0, 200.0))
        FigureCanvasAgg(figure).draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()[:1] in ("q", "m")]
    assert len(boxes) == 2 and not boxes[0].overlaps(boxes[1])


@pytest.mark.parametrize(
    ("first", "encode"), [((0.0, 0.0), (5.0, 5.0)), ((7.0, 7.0), (9.0, 0.0)), ((-1.0, 3.0), (1.0, 1.0))]
)
def test_times_that_are_all_the_same_or_below_the_tower_are_drawn(
    view_of: Callable[..., TradeoffData], tmp_path: Path, first: tuple[float, ...], encode: tuple[float, ...]
) -> None:
    columns = {"first_token_ms": {"saliency": first}, "encode_ms": {"saliency": encode}}
    data = view_of({"saliency": (0.9, 0.8)}, (1.0, 0.5), columns=columns)
    assert "accuracy_latency" in draw_all(data, tmp_path, "")
