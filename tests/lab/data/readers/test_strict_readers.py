"""Tables and JSON read strictly: nothing is guessed, shifted or dropped, and what is wrong is told with its line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from salience.lab.data.readers.strict_csv import read_sheet
from salience.lab.data.readers.strict_json import read_json
from salience.lab.data.readers.text_files import column_name, is_litter


def fits(names: Sequence[str]) -> bool:
    return {"image", "answer"} <= set(names)


def sheet(folder: Path, content: str | bytes) -> list[tuple[tuple[str, ...], int, int]]:
    """The rows of a table: cells, number, line."""
    file = folder / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(row.cells, row.number, row.line) for row in read_sheet(file, fits)[1]]


@pytest.mark.parametrize(
    "content",
    [
        "image,answer\na,é\n",
        "image,answer\r\na,é\r\n",
        "image,answer\ra,é\r",  # Excel's CSV (Macintosh)
        "Image;Answer\na;é",
        "IMAGE\tAnswer\na\té\n",
        "image|answer\na|é\n",
        "image, answer\na, \"é\"\n",
        "\n\nimage,answer\n\na,é\n\n",
        *("image,answer\na,é\n".encode(coding) for coding in ("utf-8-sig", "utf-16", "utf-32")),
    ],
)  # fmt: skip
def test_separators_line_ends_and_encodings_are_told_from_the_file(content: str | bytes, tmp_path: Path) -> None:
    (row,) = sheet(tmp_path, content)
    assert row[:2] == (("a", "é"), 1)


def test_excels_line_names_the_separator(tmp_path: Path) -> None:
    assert sheet(tmp_path, "sep=;\nimage;answer\na;b, c\n") == [(("a", "b, c"), 1, 3)]


def test_cells_are_text_exactly_as_written(tmp_path: Path) -> None:
    for cell in ("07", "7.0", "1e3", "NA", "None", "nan", "null", "TRUE", "2020-01-02", '5" pipe'):
        assert sheet(tmp_path, f"image,answer\na,{cell}\n")[0][0] == ("a", cell)


def test_lines_are_counted_through_cells_of_several_lines_and_blank_lines(tmp_path: Path) -> None:
    rows = sheet(tmp_path, 'image,answer\na,"x\r\ny\nz"\n\n ,\nb,c\n')
    assert rows == [(("a", "x\r\ny\nz"), 1, 2), (("", ""), 2, 6), (("b", "c"), 3, 7)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,answer\na,b\n1,which, red?\n", r"row 2, line 3: 3 cells, but the header has 2; .* double quotes"),
        ("image,answer\na,b\nc\n", r"row 2, line 3: 1 cell, but the header has 2"),
        ('image,answer\na,"b\nc,d\n', r"row 1, line 2: .*never closed"),
        ('image,answer\na,"b\nc"\nc,d\ne,"f\n', r"row 3, line 5: .*never closed"),
        ('image,answer\na,b\nc,"d"e\n', r"row 2, line 3: text stands behind a closing double quote"),
        ('image,answer\na,"b\nc,"d"\n', r"row 1, line 2: text stands behind"),
        (f"image,answer\na,{'x' * 200_000}\n", r"row 1, line 2: a cell is longer than 131,072 characters"),
        ('image,answer\na,"b\nc,d"\ne,f\n', r"row 1, line 2: double quotes make one row of 2 lines, each with 2 cells"),
        ('image,answer\n\na,b\n"c,d\ne,f\ng",h\n', r"row 2, line 4: double quotes make one row of 3 lines"),
        ("My table\nimage,answer\na,b\n", "the columns' names are in line 2, but must be first"),
        ("# a, b\n\nImage;Answer\na;b\n", "the columns' names are in line 3"),
        (b"PK\x03\x04\x14\0", "t.csv is no text but a spreadsheet or another ZIP archive"),
        (b"\x1f\x8b\x08\0", "t.csv is no text but compressed with gzip"),
        ("image,answer,Image\na,b,c\n", "the columns 'image' and 'Image' are one"),
        ("image,answer\na,b\0\n", "line 2: it holds a NUL character"),
        ("", "t.csv is empty"),
        ("\n\n", "t.csv is empty"),
        ("image,answer\na,é\n".encode("latin-1"), "line 2: the byte 0xe9 is not UTF-8 text .*CSV UTF-8"),
        ("image,answer\na,b\n".encode("utf-16-le"), "line 1: it holds a NUL character"),
        (b"\xff\xfei\0m", "is empty|columns"),
        (b"\xff\xfei\0m\0a", "is not UTF-16 text"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_with_its_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    if content == b"\xff\xfei\0m":
        content = b"\xff\xfe"  # a mark and nothing else
    with pytest.raises(ValueError, match=said) as told:
        sheet(tmp_path, content)
    assert "\n" not in str(told.value)


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d\x0b\x0c\x1ce"
    (tmp_path / "t.jsonl").write_text(
        "\n".join([json.dumps({"q": text}, ensure_ascii=False), "", '{"q": 1}\r']), encoding="utf-8", newline=""
    )
    assert [(row.value["q"], row.number, row.line) for row in read_json(tmp_path / "t.jsonl")] == [
        (text, 1, 1),
        (1, 2, 3),
    ]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("t.json", '[{"a": 1}]', [{"a": 1}]),
        ("t.jsonl", '[\n{"a": 1}\n]', [{"a": 1}]),  # a list, whatever its name
        ("t.json", '{"a": 1}\n', {"a": 1}),
        ("t.json", '\ufeff{"a": "07"}', {"a": "07"}),
    ],
)
def test_json_is_a_document_or_lines_whatever_its_name(
    name: str, content: str, found: object, tmp_path: Path
) -> None:  # fmt: skip
    (tmp_path / name).write_text(content, encoding="utf-8")
    read = read_json(tmp_path / name)
    assert ([row.value for row in read] if isinstance(read, list) else read) == found
    (tmp_path / name).write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    assert [row.value for row in read_json(tmp_path / name)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", '{"a": 1}\n\n{half', r"row 2, line 3 is no JSON"),
        ("t.jsonl", '{"a": 1, "a": 2}', "row 1: an object has the key 'a' twice"),
        ("t.json", '{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' twice"),
        ("t.json", '[{"a": 1},\n{"a": 1,]', "line 2 is no JSON"),
        ("t.json", '[{"a": 1}]\n[]', "line 2 is no JSON"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.jsonl", '{"a": ' + "[" * 100_000, "nested too deeply"),
        ("t.json", " \n", "t.json is empty"),
    ],
)
def test_json_that_can_not_be_read_is_told_with_its_row(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said) as told:
        read_json(tmp_path / name)
    assert "\n" not in str(told.value)


def test_names_of_columns_and_of_what_systems_leave() -> None:
    assert column_name(" Image-Path ") == column_name("IMAGE PATH") == "image_path"
    for litter in (".DS_Store", ".ipynb_checkpoints/t.csv", "a/__MACOSX/t.csv", "~$t.csv", "a/._1.png", "@eaDir/1.png"):
        assert is_litter(Path(litter))
    assert not any(is_litter(Path(mine)) for mine in ("t.csv", "a.b/1.png", "a/~b.png"))


def test_marks_that_nobody_sees_are_no_part_of_names_and_first_cells(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf\xef\xbb\xbfimage,\xe2\x80\x8banswer\r\na,b\r\n\xef\xbb\xbfc,d\r\n"  # files put together
    assert sheet(tmp_path, content) == [(("a", "b"), 1, 2), (("c", "d"), 2, 3)]


def test_a_cell_of_several_lines_is_read_where_they_are_no_rows(tmp_path: Path) -> None:
    assert sheet(tmp_path, 'image,answer\na,"b, c\nd"\n')[0][0] == ("a", "b, c\nd")


def test_numbers_in_json_are_shown_as_written(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1.10, "b": 1e3, "c": 12345678901234567890.5}\n')
    (row,) = read_json(tmp_path / "t.jsonl")
    assert [str(value) for value in row.value.values()] == ["1.10", "1e3", "12345678901234567890.5"]
    assert list(row.value.values()) == [1.1, 1000.0, 12345678901234567890.5]
