"""Which picture a row means: a path is a path, a bare name is the only one, and no other picture ever stands in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from salience.lab.data.vqa import load_folder


def found(root: Path, image: str, *files: str, table: str = "t.jsonl") -> str:
    """The picture that a row with `image` is given, each file's picture of another size; relative to the folder."""
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8 + number)).save(root / name, format="PNG")
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text(json.dumps({"image": image, "question": "q", "answer": "a"}))
    (sample,) = load_folder(root).samples
    return str(sample.path.resolve().relative_to(root.resolve()))


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("b/1.png", "a/1.png"),
        ("b/1.png", "1.png"),
        ("1.png", "x/1.jpg"),
        ("1.png", "1.jpg"),
        ("1.png", "1.png.jpg"),
        ("./1.png", "a/1.png"),
        ("chart_7", "photo_7.png"),
        ("chart_7.png", "photo_7.png"),
        ("7", "photo_7.png"),
        ("7", "007.png"),
        ("07", "COCO_val2014_000000000007.jpg"),
        ("7.png", "COCO_val2014_000000000007.jpg"),
        ("chart_000000000007", "COCO_val2014_000000000007.jpg"),
        ("val/7", "COCO_val2014_000000000007.jpg"),
        ("x.png", "X.png"),
        ("1.png", ".ipynb_checkpoints/1.png"),
        ("1.png", "__MACOSX/1.png"),
        ("C:\\a\\1.png", "a/1.png"),
        ("/nowhere/1.png", "1.png"),
        ("https://x.org/1.png", "1.png"),
        ("../1.png", "1.png"),
        (".", "1.png"),
        ("x" * 5000, "1.png"),
    ],
)
def test_no_other_picture_stands_in_for_a_missing_one(image: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^t.jsonl, row 1: image: ") as told:
        found(tmp_path, image, file)
    assert image[:100] in str(told.value)


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("a/1.png", "a/1.png"),
        ("a/1.png", "images/a/1.png"),
        ("1.png", "x/y/1.png"),
        ("1", "x/y/1.png"),
        ("a\\1.png", "a/1.png"),
        ("a/1.png", "a/1.PNG"),
        ("1.JPG", "x/1.jpg"),
        ("caf\u00e9.png", "x/cafe\u0301.png"),  # as Linux and macOS write it
        ("cafe\u0301/1.png", "caf\u00e9/1.png"),
        ("7", "x/COCO_val2014_000000000007.jpg"),
        ("7", "x/000000000007.jpg"),
        ("000000000007.jpg", "x/COCO_val2014_000000000007.jpg"),
        ("COCO_val2014_000000000007.jpg", "x/000000000007.jpg"),
    ],
)
def test_a_picture_is_found(image: str, file: str, tmp_path: Path) -> None:
    assert found(tmp_path, image, file) == file


def test_a_name_that_two_pictures_have_is_refused_but_for_copies(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1: image: 1.png may be .*a/1.png or .*b/1.png; name it by its path"):
        found(tmp_path, "1.png", "a/1.png", "b/1.png")
    (tmp_path / "b" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    assert found(tmp_path, "1.png") == "a/1.png"


@pytest.mark.parametrize(
    ("image", "files", "taken"),
    [
        ("1.png", ("1.png", "a/1.png"), "1.png"),  # a path from the questions file on
        ("1.PNG", ("a/1.png", "a/1.PNG"), "a/1.PNG"),
        ("a/1.png", ("a/1.png", "images/a/1.png"), "a/1.png"),
        ("7", ("7.png", "x/COCO_val2014_000000000007.jpg"), "7.png"),
    ],
)
def test_the_nearer_way_to_read_a_name_comes_first(
    image: str, files: tuple[str, ...], taken: str, tmp_path: Path
) -> None:  # fmt: skip
    assert found(tmp_path, image, *files) == taken


@pytest.mark.parametrize("files", [("1.png", "images/1.png"), ("1.png", "1.jpg"), ("x/7.png", "x/000000000007.png")])
def test_two_ways_to_read_a_name_are_refused(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="may be"):
        found(tmp_path, "7" if "7" in files[0] else "1.png" if "images" in files[1] else "1", *files)


def test_paths_are_relative_to_the_questions_file(tmp_path: Path) -> None:
    assert found(tmp_path, "a/1.png", "a/1.png", "q/a/1.png", table="q/t.jsonl") == "q/a/1.png"
    assert found(tmp_path, "../a/1.png", table="q/t.jsonl") == "a/1.png"
    assert found(tmp_path, str(tmp_path / "a" / "1.png"), table="q/t.jsonl") == "a/1.png"


def test_a_picture_under_two_names_is_one_picture(tmp_path: Path) -> None:
    found(tmp_path, "1.png", "1.png")
    rows = [{"image": image, "question": image, "answer": "a"} for image in ("1.png", "./1.png", "1")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert {sample.picture for sample in load_folder(tmp_path).samples} == {0}
