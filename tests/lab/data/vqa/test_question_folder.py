"""Every layout of questions and pictures, each a tiny folder written here as its publishers lay it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from salience.lab.data.vqa import load_folder
from salience.lab.data.vqa.layouts import easy_vqa as installed


def draw(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def lines(rows: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def vqav2(root: Path) -> None:
    for split, number in (("train", 9), ("val", 42)):
        draw(root / f"{split}2014" / f"COCO_{split}2014_{number:012d}.jpg")
        name = f"mscoco_{split}2014"
        questions = [{"image_id": number, "question": "What colour?", "question_id": number * 1000}]
        write(root / f"v2_OpenEnded_{name}_questions.json", {"questions": questions})
        answers = [{"answer": "red" if k < 7 else "pink", "answer_id": k} for k in range(10)]
        given = {"question_id": number * 1000, "image_id": number, "answers": answers, "answer_type": "other"}
        write(root / f"v2_{name}_annotations.json", {"annotations": [given]})


def gqa(root: Path) -> None:
    draw(root / "images" / "2405722.jpg")
    asked = {"imageId": "2405722", "question": "What colour?", "answer": "red", "types": {"structural": "query"}}
    write(root / "questions" / "testdev_balanced_questions.json", {"201307251": asked})


def textvqa(root: Path) -> None:
    draw(root / "train_images" / "0054c91397f2fe05.jpg")
    row = {"question": "What colour?", "image_id": "0054c91397f2fe05", "question_id": 1}
    write(root / "TextVQA_0.5.1_val.json", {"data": [{**row, "answers": ["red"] * 9 + ["pink"]}]})
    write(root / "TextVQA_0.5.1_test.json", {"data": [row]})  # without answers


def pope(root: Path) -> None:
    draw(root / "val2014" / "COCO_val2014_000000310196.jpg")
    row = {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "What colour?", "label": "yes"}
    write(root / "coco_pope_adversarial.json", lines([row, {**row, "question_id": 2, "label": "no"}]))


def csv(root: Path) -> None:
    draw(root / "pictures" / "a.png")
    write(root / "mine.csv", "image,question,answer,choices,category\npictures/a.png,What colour?,red,red|blue,hue\n")


def jsonl(root: Path) -> None:
    draw(root / "a.png")
    write(root / "mine.jsonl", lines([{"image": "a.png", "question": "What colour?", "answers": ["red"]}]))


def easy_vqa(root: Path) -> None:
    for split, colour in (("train", "blue"), ("test", "red")):
        draw(root / split / "images" / "0.png", colour)
        asked = [["what colour is the shape?", colour, 0], ["is there a circle?", "no", 0]]
        write(root / split / "questions.json", asked)


@pytest.mark.parametrize(
    ("layout", "lay_out", "first", "kind", "choices"),
    [
        ("vqav2", vqav2, "red", "other", ()), ("gqa", gqa, "red", "query", ()), ("textvqa", textvqa, "red", "", ()),
        ("pope", pope, "yes", "adversarial", ("yes", "no")), ("table", csv, "red", "hue", ("red", "blue")),
        ("table", jsonl, "red", "", ()), ("easy-vqa", easy_vqa, "red", "colour", ()),
    ],
)  # fmt: skip
def test_a_layout_is_recognised_and_read(
    layout: str, lay_out: Callable[[Path], None], first: str, kind: str, choices: tuple[str, ...], tmp_path: Path
) -> None:
    lay_out(tmp_path)
    task = load_folder(tmp_path)
    sample = task.samples[0]
    assert (task.layout, sample.answer, sample.kind, sample.choices) == (layout, first, kind, choices)
    assert sample.question.lower().startswith("what colo")
    assert sample.image.size == (8, 6)
    assert "row 1" in sample.row or "question 201307251" in sample.row


def test_the_training_split_is_for_the_baselines(tmp_path: Path) -> None:
    vqav2(tmp_path)
    task = load_folder(tmp_path)
    assert [len(task.samples), len(task.train)] == [1, 1]
    assert task.samples[0].answers == ("red",) * 7 + ("pink",) * 3
    assert task.samples[0].path.name == "COCO_val2014_000000000042.jpg"


def test_names_that_repeat_by_split_are_found_beside_their_questions(tmp_path: Path) -> None:
    easy_vqa(tmp_path)
    task = load_folder(tmp_path)
    assert task.samples[0].image.getpixel((0, 0)) == (255, 0, 0)  # the test split's 0.png
    assert [sample.answer for sample in task.train] == ["blue", "no"]


def test_a_pictures_questions_stand_together(tmp_path: Path) -> None:
    for name in "ab":
        draw(tmp_path / f"{name}.png")
    rows = [{"image": f"{name}.png", "question": "q", "answer": "x"} for name in "abab"]
    write(tmp_path / "rows.jsonl", lines(rows))
    assert [(sample.picture, sample.row[-1]) for sample in load_folder(tmp_path).samples] == [
        (0, "1"), (0, "3"), (1, "2"), (1, "4"),
    ]  # fmt: skip


def test_what_is_wrong_is_said_with_the_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder or file"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="VQAv2, GQA, TextVQA"):
        load_folder(tmp_path)
    good = {"image": "a.png", "question": "q", "answer": "x"}
    for bad, words in (
        ({"image": "b.png", "question": "q", "answer": "x"}, "row 2.*no file b.png"),
        ({"image": "a.png", "question": " ", "answer": "x"}, "row 2 has no question"),
        ({"image": "a.png", "question": "q"}, "row 2 has no answer"),
        ({"image": "a.png", "question": "q", "answer": "x", "choices": "y|z"}, "row 2.*'x'.*none of its choices"),
        ([], "row 2 is no object"),
    ):
        draw(tmp_path / "a.png")
        write(tmp_path / "rows.jsonl", lines([good, bad]))  # type: ignore[list-item]
        with pytest.raises(ValueError, match=words):
            load_folder(tmp_path)
    write(tmp_path / "rows.jsonl", json.dumps(good) + "\n{half")
    with pytest.raises(ValueError, match="row 2 is no JSON"):
        load_folder(tmp_path)


def test_a_picture_that_is_cut_off_names_its_row(tmp_path: Path) -> None:
    jsonl(tmp_path)
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"mine.jsonl, row 1: image: .*cut off"):
        _ = load_folder(tmp_path).samples[0].image


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'salience\[easy-vqa\]'"):
        installed.folder()


def test_the_package_itself() -> None:
    pytest.importorskip("easy_vqa", reason="the package easy-vqa is not installed")
    task = load_folder(installed.folder())
    assert [len(task.samples), len(task.train)] == [9673, 38575]
    assert {sample.kind for sample in task.samples} == {"yes-no", "colour", "shape"}
