"""Tables of one's own: what is an answer, what is none, and which columns, files and layouts are meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from salience.lab.data.vqa import VqaTask, load_folder

HEAD = "image,question,answer\n"


def load(root: Path, **files: str | bytes) -> VqaTask:
    """The task of a folder with 1.png and these files; "__" in a name stands for a dot."""
    Image.new("RGB", (8, 6)).save(root / "1.png")
    for name, content in files.items():
        file = root / name.replace("__", ".")
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_folder(root)


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("column", ["answer", "answers"])
@pytest.mark.parametrize(
    "written",
    [
        "['7', 'seven']",  # pandas
        "['7' 'seven']",  # numpy, whose strings Python would join
        "['7'\n 'seven']",
        "array(['7', 'seven'], dtype=object)",
        "[np.str_('7'), np.str_('seven')]",
        "('7', 'seven')",
        '["7", "seven"]',
        "['7', \"seven\",]",
    ],
)
def test_a_list_in_a_cell_is_several_answers(column: str, written: str, tmp_path: Path) -> None:
    task = load(tmp_path, t__csv=f"image,question,{column}\n1.png,q,{cell(written)}\n")
    assert task.samples[0].answers == ("7", "seven")


def test_nothing_of_a_cell_is_evaluated(tmp_path: Path) -> None:
    bad = f"[__import__('pathlib').Path({str(tmp_path / 'made')!r}).touch(), 'b']"
    with pytest.raises(ValueError, match=r"row 1, line 2: its answers .* can't be read as a list"):
        load(tmp_path, t__csv=f"image,question,answers\n1.png,q,{cell(bad)}\n")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "written", ["[7, 8]", "[7]", "[]", "['7', nan]", "['7', None]", "['7', seven]", "['7', 'seven'", "7|seven"]
)
def test_a_list_that_is_none_of_texts_is_no_answer(written: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t.csv, row 1, line 2"):
        load(tmp_path, t__csv=f"{HEAD}1.png,q,{cell(written)}\n")


@pytest.mark.parametrize("written", ["nan", "None", "NA", "null", "07", "7.0", "[CLS]", "(a)", "a, b", "it's", "TRUE"])
def test_words_of_all_kinds_stay_words(written: str, tmp_path: Path) -> None:
    task = load(tmp_path, t__csv=f"{HEAD}1.png,q,{cell(written)}\n1.png,r,red\n")
    assert task.samples[0].answers == (written,)


@pytest.mark.parametrize("column", ["answer", "answers"])
@pytest.mark.parametrize(
    "value",
    ["null", "NaN", "Infinity", '""', '" "', "[]", "[null]", "[NaN]", '["a", ""]', "true", "[true]", "{}", "[[1]]"],
)
def test_a_missing_answer_in_json_is_refused_with_its_row(column: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t.jsonl, row 1"):
        load(tmp_path, t__jsonl=f'{{"image": "1.png", "question": "q", "{column}": {value}}}\n')


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("7", ("7",)), ("7.0", ("7.0",)), ('"07"', ("07",)), ('"nan"', ("nan",)), ('["a", 7]', ("a", "7")),
        ('[{"answer": "a"}, {"answer": "b"}]', ("a", "b")), ('"a|b"', ("a|b",)),
    ],
)  # fmt: skip
def test_answers_in_json_are_read_as_written(value: str, answers: tuple[str, ...], tmp_path: Path) -> None:
    task = load(tmp_path, t__jsonl=f'{{"image": "1.png", "question": "q", "answer": {value}}}\n')
    assert task.samples[0].answers == answers


@pytest.mark.parametrize("others", ["7", "7.5", "-1e3"])
def test_nan_in_a_column_of_numbers_is_a_missing_answer(others: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 2, line 3 has no answer \(it is nan, and others are numbers\)"):
        load(tmp_path, t__csv=f"{HEAD}1.png,q,{others}\n1.png,r,nan\n")


def test_nan_among_lists_is_a_missing_answer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 2, line 3 has no answer \(it is nan, and others are lists\)"):
        load(tmp_path, t__csv="image,question,answers\n1.png,q,\"['a', 'b']\"\n1.png,r,nan\n")


@pytest.mark.parametrize("question", ["", " ", "nan", "None"])
def test_a_missing_question_is_refused(question: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1, line 2 has no question"):
        load(tmp_path, t__csv=f"{HEAD}1.png,{question},7\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"{HEAD}1.png,which, red one?,7\n", r"row 1, line 2: 4 cells, but the header has 3"),
        ("image,question,answer,\n1.png,which, red one?,7\n", "'7' stands in column 4, which has no name"),
        ("picture,q,a\n1.png,q,7\n", "no column image and no column question and no column answer but picture, q, a"),
        ("1.png,which?,7\n1.png,what?,8\n", "its first line must name the columns image, question and answer"),
        ("image,question,reply\n1.png,q,7\n", r"row 1, line 2 has no answer or label"),
        ("image,question,answer,choices\n1.png,q,7,7|7\n", "two or more that differ"),
        ("image,question,answer,choices\n1.png,q,7,8|9\n", "none of its choices 8, 9"),
        (HEAD, "no row"),
        (f"{HEAD}1.png,\u00e9,7\n".encode("latin-1"), "t.csv, line 2: the byte 0xe9 is not UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as told:
        load(tmp_path, t__csv=content)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "content",
    [
        "Image,Question,Answer\n1.png,q,7\n", "image;question;answer\n1.png;q;7\n",
        ",image,question,answer\n0,1.png,q,7\n",
        "image,question,answer,\n1.png,q,7,\n", "image\tquestion\tanswer\n1.png\tq\t7\n".encode("utf-16"),
    ],
)  # fmt: skip
def test_what_spreadsheets_and_pandas_write_is_read(content: str | bytes, tmp_path: Path) -> None:
    (sample,) = load(tmp_path, t__csv=content).samples
    assert (sample.question, sample.answers) == ("q", ("7",))


def test_what_systems_leave_is_no_second_table(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t-checkpoint.csv").write_text(f"{HEAD}1.png,q,8\n")
    task = load(tmp_path, t__csv=f"{HEAD}1.png,q,7\n", **{"~$t__csv": b"\xff\xfe\xff", "__DS_Store": b"\xff"})
    assert [sample.answers for sample in task.samples] == [("7",)]


def test_a_copy_of_a_table_is_not_counted_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"t \(1\).csv, row 1, line 2 and t.csv, row 1, line 2 ask the same"):
        load(tmp_path, **{"t__csv": f"{HEAD}1.png,q,7\n", "t (1)__csv": f"{HEAD}1.png,q,7\n"})


def test_questions_in_two_layouts_are_refused(tmp_path: Path) -> None:
    pope = json.dumps({"image": "1.png", "text": "q", "label": "yes"})
    with pytest.raises(ValueError, match=r"two layouts, pope \(pope.json\) and table \(t.csv\)"):
        load(tmp_path, t__csv=f"{HEAD}1.png,q,7\n", pope__json=pope)


def test_a_questions_table_that_lacks_a_column_is_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"other.csv has no column image but picture, question, answer"):
        load(tmp_path, t__csv=f"{HEAD}1.png,q,7\n", other__csv="picture,question,answer\n1.png,r,7\n")


def test_a_file_whose_name_only_sounds_like_a_split_is_not_preferred(tmp_path: Path) -> None:
    assert len(load(tmp_path, t__csv=f"{HEAD}1.png,q,7\n", values__csv=f"{HEAD}1.png,r,7\n").samples) == 2


@pytest.mark.parametrize("label", ["maybe", "1", "", "nan"])
def test_popes_labels_are_yes_or_no(label: str, tmp_path: Path) -> None:
    rows = [{"image": "1.png", "text": "q", "label": each} for each in ("Yes", "no", label)]
    with pytest.raises(ValueError, match=r"pope.json, row 3"):
        load(tmp_path, pope__json="\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(("name", "said"), [("t.xlsx", "CSV UTF-8"), ("t.parquet", "orient='records', lines=True")])
def test_what_is_no_text_is_told_how_to_be_saved(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"{name} can't be read.*{said}"):
            load_folder(path)


def test_a_split_that_has_answers_has_them_in_every_row(tmp_path: Path) -> None:
    row = {"image_id": "1", "question": "q", "answers": ["a"]}
    with pytest.raises(ValueError, match=r"val.json, row 2 has no answers"):
        load(tmp_path, val__json=json.dumps({"data": [row, {**row, "answers": []}]}))
    (tmp_path / "val.json").unlink()
    rows = {"1": {"imageId": "1", "question": "q", "answer": "a"}, "2": {"imageId": "1", "question": "q"}}
    with pytest.raises(ValueError, match=r"val.json, question 2 has no answer"):
        load(tmp_path, val__json=json.dumps(rows))


def test_annotations_that_disagree_are_refused(tmp_path: Path) -> None:
    questions = {"questions": [{"image_id": 1, "question": "q", "question_id": 5}]}
    notes = [{"annotations": [{"question_id": 5, "answers": [{"answer": each}]}]} for each in "ab"]
    with pytest.raises(ValueError, match=r"v2.json: question 5 has other answers in another file"):
        load(tmp_path, q__json=json.dumps(questions), v1__json=json.dumps(notes[0]), v2__json=json.dumps(notes[1]))


@pytest.mark.parametrize(
    ("head", "cells", "lacks"),
    [
        ("image,image_id,question,answer", ",1,q,7", "image"),
        ("image,question,text,answer", "1.png,,words in the picture,7", "question"),
        ("image,question,answer,label", "1.png,q,,0", "answer"),
    ],
)
def test_an_empty_cell_is_not_filled_from_another_column(head: str, cells: str, lacks: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"t.csv, row 1, line 2 has no {lacks} \\(it is empty"):
        load(tmp_path, t__csv=f"{head}\n{cells}\n")
    row = {name: cell or None for name, cell in zip(head.split(","), cells.split(","), strict=True)}
    (tmp_path / "t.csv").unlink()
    with pytest.raises(ValueError, match=f"t.jsonl, row 1 has no {lacks} \\(it is null"):
        load(tmp_path, t__jsonl=json.dumps(row))


@pytest.mark.parametrize("gap", ["NA", "N/A", "null", "None", "nan"])
def test_how_programs_write_a_gap_is_none_of_the_numbers(gap: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 2, line 3 has no answer"):
        load(tmp_path, t__csv=f"{HEAD}1.png,q,7\n1.png,r,{gap}\n")
    (tmp_path / "t.csv").unlink()
    rows = [{"image": "1.png", "question": str(n), "answer": text} for n, text in enumerate(("7", gap))]
    with pytest.raises(ValueError, match="row 2 has no answer"):
        load(tmp_path, t__json=json.dumps(rows))


@pytest.mark.parametrize("column", range(3))
def test_a_formula_that_failed_is_no_text(column: int, tmp_path: Path) -> None:
    cells = ["1.png", "q", "red"]
    cells[column] = "#N/A" if column else "#REF!"
    with pytest.raises(ValueError, match=r"row 1, line 2 has no .* a formula that failed"):
        load(tmp_path, t__csv=f"{HEAD}{','.join(cells)}\n")


def test_a_column_that_pandas_numbered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the column 'Answer.1' is 'answer' once more"):
        load(tmp_path, t__csv="image,question,answer,Answer.1\n1.png,q,7,8\n")


def test_rows_that_a_spreadsheet_emptied_are_no_rows(tmp_path: Path) -> None:
    task = load(tmp_path, t__csv=f"{HEAD},,\n1.png,q,7\n,,\n")
    assert [sample.row for sample in task.samples] == ["t.csv, row 2, line 3"]


def test_a_files_name_comes_before_its_number(tmp_path: Path) -> None:
    task = load(tmp_path, t__csv="image_id,file_name,question,answer\n17,1.png,q,7\n")
    assert task.samples[0].path.name == "1.png"
