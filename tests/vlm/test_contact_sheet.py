"""The contact sheet: panels where they belong, each as its trace draws it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from salience.core.types import Merge, VisualGrid
from salience.vlm.contact_sheet import contact_sheet
from salience.vlm.drawing import heat_picture
from salience.vlm.trace import ImageTrace, StageTrace

GRID = VisualGrid(rows=2, columns=2)


def trace(kept: list[int], scores: list[float] | None = None) -> ImageTrace:
    given = None if scores is None else torch.tensor(scores)
    return ImageTrace(grid=GRID, scores=given, kept=torch.tensor(kept))


def picture() -> Image.Image:
    return Image.new("RGB", (400, 200), (210, 90, 30))


def found_at(sheet: Image.Image, panel: Image.Image) -> list[tuple[int, int]]:
    """Places of a panel on a sheet, pixel for pixel."""
    whole, wanted = np.asarray(sheet), np.asarray(panel)
    height, width = wanted.shape[:2]
    corners = (whole[: -height + 1, : -width + 1] == wanted[0, 0]).all(-1).nonzero()
    places = zip(*corners, strict=True)
    return [(int(x), int(y)) for y, x in places if (whole[y : y + height, x : x + width] == wanted).all()]


def test_rows_are_methods_and_columns_budgets() -> None:
    traces = {
        "ours": {"keep 0.5": trace([0, 1], [0.9, 0.5, 0.1, 0.2]), "keep 0.25": trace([0], [0.9, 0.5, 0.1, 0.2])},
        "uniform": {"keep 0.5": trace([0, 3]), "keep 0.25": trace([3])},
    }
    sheet, small = contact_sheet(picture(), traces, side=60), picture().resize((60, 30))
    places = {
        (method, name): found_at(sheet, one.draw(small)) for method, row in traces.items() for name, one in row.items()
    }
    assert all(len(found) == 1 for found in places.values())
    x = {name: places[("ours", name)][0][0] for name in ("keep 0.5", "keep 0.25")}
    y = {method: places[(method, "keep 0.5")][0][1] for method in traces}
    assert x["keep 0.5"] + 60 < x["keep 0.25"]
    assert y["ours"] + 30 < y["uniform"]
    assert places == {(m, n): [(x[n], y[m])] for m in traces for n in x}
    assert found_at(sheet, heat_picture(small, GRID, torch.tensor([0.9, 0.5, 0.1, 0.2]))) == [
        (2 * x["keep 0.25"] - x["keep 0.5"], y["ours"])
    ]


def test_no_column_of_scores_where_none_has_any() -> None:
    one = contact_sheet(picture(), {"uniform": {"keep 0.5": trace([0, 3])}}, side=60)
    other = contact_sheet(picture(), {"uniform": {"keep 0.5": trace([0, 3], [1, 2, 3, 4])}}, side=60)
    assert other.width == one.width + 68


def test_a_long_title_is_broken_into_lines() -> None:
    short = contact_sheet(picture(), {"a": {"b": trace([0])}}, side=60)
    titled = contact_sheet(picture(), {"a": {"b": trace([0])}}, side=60, title="what is there in the picture " * 3)
    assert titled.width == short.width
    assert titled.height > short.height + 2 * 18


def merge(target: list[int], source: list[int]) -> Merge:
    return Merge(target=torch.tensor(target), source=torch.tensor(source), weight=torch.ones(len(target)))


def test_groups_follow_a_merge_before_the_language_model_and_one_inside_it() -> None:
    """Of 2 x 2: 1 goes into 0, then 0 with its own into 3, and 2 is dropped."""
    image = ImageTrace(
        grid=GRID, scores=None, kept=torch.tensor([3]), entered=torch.tensor([0, 2, 3]), merge=merge([0, 0], [0, 1]),
        stages=(
            StageTrace(layer=1, kept=torch.tensor([0, 3])),
            StageTrace(layer=2, kept=torch.tensor([3]), merge=merge([0, 0], [3, 0])),
        ),
    )  # fmt: skip
    assert image.groups() == {3: {0, 1, 3}}
    drawn = image.draw(Image.new("RGB", (40, 40)))
    first, last = drawn.getpixel((1, 1)), drawn.getpixel((21, 21))
    assert first == drawn.getpixel((1, 10)) != last  # inside cell 0: a line of one pixel on its edge
    assert drawn.getpixel((0, 10)) == last  # and of two around the kept cell, in one colour


def test_a_merged_token_that_is_dropped_later_has_no_group() -> None:
    image = ImageTrace(
        grid=GRID, scores=None, kept=torch.tensor([3]), entered=torch.tensor([0, 3]), merge=merge([0, 0], [0, 1]),
        stages=(StageTrace(layer=1, kept=torch.tensor([3])),),
    )  # fmt: skip
    assert image.groups() == {}
    plain = ImageTrace(grid=GRID, scores=None, kept=torch.tensor([3]))
    assert image.draw(picture()).tobytes() == plain.draw(picture()).tobytes()


@pytest.mark.parametrize("traces", [{}, {"a": {}}, {"a": {"x": trace([0])}, "b": {"y": trace([0])}}], ids=str)
def test_what_can_not_be_laid_out(traces: Any) -> None:
    with pytest.raises(ValueError, match="the same budgets for each method"):
        contact_sheet(picture(), traces)
