"""Every argument that can be wrong is told of before a model's weights load, which takes a minute for a large one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Ran

Run = Callable[..., Ran]
ASK = ("ask", "PICTURE", "which digit is red?", "--method", "uniform")


@pytest.fixture
def refused(
    salience: Run, tiny_vlm: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command whose weights can't be loaded; the sentence it ends with. Nothing may be left in OUT."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("salience.cli.loading._model", never)

    def call(*arguments: str | Path) -> str:
        places = {"PICTURE": picture, "MODEL": tiny_vlm, "OUT": tmp_path / "out", "TMP": tmp_path}
        given = [places.get(str(argument), argument) for argument in arguments]
        ran = salience(given[0], *given[1:], *(() if given[0] == "profile" else ("--model", tiny_vlm)))
        assert (ran.code, ran.out) == (2, ""), ran.err
        (sentence,) = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
        assert not list((tmp_path / "out").glob("*"))
        return sentence

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*ASK[:-1], "telepathy"), "telepathy"),
        ((*ASK[:-1], "TMP"), "config.json"),
        ((*ASK[:-1], "saliency"), "salience fit"),
        ((*ASK[:-1], "oracle"), "boxes"),
        ((*ASK, "--tokens", "17"), "at most 16"),
        ((*ASK, "--tokens", "0"), "at least 1"),
        ((*ASK, "--mass", ".9"), "scores"),
        ((*ASK, "--keep", "2"), "at most 1"),
        ((*ASK, "--device", "abacus"), "abacus"),
        (("ask", "PICTURE", "", "--method", "uniform"), "empty"),
        (("ask", "PICTURE", "which giraffe?", "--method", "uniform"), "giraffe"),
        (("ask", "PICTURE", "<image> ?", "--method", "uniform"), "<image>"),
        (("ask", "TMP", "which digit is red?", "--method", "uniform"), "not a file"),
        ((*ASK, "--picture", "PICTURE"), "would be overwritten"),
        ((*ASK, "--picture", "x.xbm"), "use .png or .jpg"),
        ((*ASK, "--seed", str(2**31)), "2147483647"),
        ((*ASK[:-1], "fastv"), "2 layers"),
        ((*ASK[:-1], "temporal"), "videos"),
        (("ask", "PICTURE", "which \udcff?", "--method", "uniform"), "no UTF-8 text"),
        (("fit", "--out", "OUT", "--objective", "luck"), "luck"),
        (("fit", "--out", "PICTURE"), "is a file"),
        (("fit", "--out", "OUT", "--device", "abacus"), "abacus"),
        (("tradeoff", "--out", "OUT", "--methods", "telepathy"), "telepathy"),
        (("tradeoff", "--out", "OUT", "--keep", "2"), "at most 1"),
        (("tradeoff", "--out", "OUT", "--task", "vqa:TMP/nowhere"), "no folder or file"),
        (("tradeoff", "--out", "OUT", "--task", "poker"), "poker"),
        (("tradeoff", "--out", "OUT", "--methods", "saliency"), "salience fit"),
        (("tradeoff", "--out", "OUT", "--methods", "saliency-shuffled"), "only `salience study` makes"),
        (("tradeoff", "--out", "OUT", "--scorer", "TMP/nowhere"), "nowhere"),
        (("tradeoff", "--out", "OUT", "--device", "abacus"), "abacus"),
        (("profile", "MODEL", "--method", "telepathy"), "telepathy"),
        (("profile", "MODEL", "--keep", "1,2"), "at most 1"),
        (("profile", "MODEL", "--picture", "0x3"), "0x3"),
        (("profile", "MODEL", "--picture", "99999x99999"), "less than 20,000 pixels"),
        (("profile", "MODEL", "--text-tokens", "999999999"), "at most 16,777,216"),
        (("profile", "MODEL", "--device", "abacus"), "abacus"),
    ],
)
def test_what_is_wrong_is_told_before_weights_load(
    refused: Callable[..., str], arguments: tuple[str, ...], words: str
) -> None:  # fmt: skip
    assert words in refused(*arguments)


def test_rows_and_scorers_are_looked_at_before_weights_load(refused: Callable[..., str], tmp_path: Path) -> None:
    from salience import Scorer

    Scorer(10).save_pretrained(tmp_path / "narrow")
    assert "24" in refused("ask", "PICTURE", "which digit is red?", "--method", tmp_path / "narrow")
    assert "24" in refused("tradeoff", "--out", "OUT", "--scorer", tmp_path / "narrow")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "none.png", "question": "q", "answer": "a"}))
    task = ("tradeoff", "--out", "OUT", "--task", f"vqa:{tmp_path / 't.jsonl'}")
    assert "t.jsonl, row 1: image: there is no file none.png" in refused(*task)
    assert "needs boxes" in refused(*task, "--methods", "oracle")


def test_a_question_that_can_not_be_asked_is_told_with_its_row(
    refused: Callable[..., str], picture: Path, tmp_path: Path
) -> None:
    rows = [{"image": picture.name, "question": question, "answer": "a"} for question in ("which ?", "the <image> ?")]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = ("tradeoff", "--out", "OUT", "--task", f"vqa:{tmp_path / 't.jsonl'}", "--methods", "uniform")
    assert "t.jsonl, row 2: its question must not contain <image>" in refused(*task)
    (tmp_path / "t.jsonl").write_text(json.dumps(rows[0]))
    assert "--instruction must not contain <image>" in refused(*task, "--instruction", "<image>")


def test_the_picture_asked_about_is_not_written_over(refused: Callable[..., str], picture: Path) -> None:
    own = picture.rename(picture.with_name("kept.png"))
    before = own.read_bytes()
    assert "would be overwritten" in refused("ask", own, "which digit is red?", "--out", own.parent)
    assert own.read_bytes() == before
