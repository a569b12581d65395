"""What is dimmed, and pictures that may be missing."""

from pathlib import Path

import pytest

from salience.core.result_tables import Example, ExampleCut
from salience.lab.report.tradeoff.samples import dimmed_path, sample


@pytest.mark.parametrize(
    ("kept", "path"),
    [
        ([], "M0 0h3v1h-3zM0 1h3v1h-3z"),
        ([0, 1, 2, 3, 4, 5], ""),
        ([1], "M0 0h1v1h-1zM2 0h1v1h-1zM0 1h3v1h-3z"),
        ([0, 3, 4], "M1 0h2v1h-2zM2 1h1v1h-1z"),
    ],
)
def test_dropped_cells_are_drawn_in_runs(kept: list[int], path: str) -> None:
    assert dimmed_path(kept, 2, 3) == path


def example(image: str | None) -> Example:
    cuts = (
        ExampleCut(method="random", keep=1.0, kept=(0, 1, 2, 3), answer="7"),
        ExampleCut(method="random", keep=0.5, kept=(0, 3), answer="7"),
        ExampleCut(method="saliency", keep=0.25, kept=(3,), answer="2"),
    )
    return Example(
        image=image,
        question="which?",
        answer="7",
        full_answer="7",
        kind="count",
        boxes=((0, 0, 168, 336),),
        grid=(2, 2),
        cuts=cuts,
    )


def test_cuts_stand_under_their_ratio_and_say_whether_they_are_right() -> None:
    made = sample(example(None), Path(), "p0")
    assert made.keeps == ("50%", "25%")
    assert [row.method for row in made.cut_rows] == ["random", "learned saliency"]
    half, quarter = made.cut_rows[0].cuts
    assert quarter is None
    assert half is not None
    assert half.right
    assert half.words == "2 of 4 tokens, random tokens; answered 7, right"
    wrong = made.cut_rows[1].cuts[1]
    assert wrong is not None
    assert not wrong.right
    assert made.boxes == ((0.0, 0.0, 1.0, 2.0),)  # in cells of the 2 x 2 grid


def test_a_missing_or_broken_picture_is_no_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    assert sample(example("none.png"), tmp_path, "p0").picture is None
    assert sample(example("broken.png"), tmp_path, "p0").picture is None


def test_a_picture_is_embedded(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "picture.png"
    Image.new("RGBA", (20, 10), "red").save(path)
    picture = sample(example("picture.png"), tmp_path, "p0").picture
    assert picture is not None
    assert picture.startswith("data:image/jpeg;base64,")
