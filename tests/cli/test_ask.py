"""`salience ask`: what it prints and writes, and that bad input is refused in one sentence with exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .conftest import Ran

Run = Callable[..., Ran]
QUESTION = "which digit is red?"


@pytest.fixture
def ask(salience: Run, tiny_vlm: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`salience ask PICTURE QUESTION --method uniform --model TINY ...`, parts replaced by keyword; timed once only."""
    monkeypatch.setattr("salience.cli.answering._PATIENCE_MS", 0.0)

    def call(*more: str | Path, image: Path = picture, question: str = QUESTION, model: Path = tiny_vlm) -> Ran:
        method = () if "--method" in more else ("--method", "uniform")
        return salience("ask", image, question, "--model", model, *method, *more)

    return call


def refused(ran: Ran, *words: str) -> None:
    """Exit code 2 and one sentence that holds `words`; nothing on stdout, no traceback."""
    assert (ran.code, ran.out) == (2, "")
    errors = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in errors[0]


def test_prints_both_answers_tokens_and_times(ask: Run) -> None:
    ran = ask("--keep", ".25")
    assert ran.code == 0
    for words in (QUESTION, "all tokens", "uniform, keep 0.25", "visual tokens", "first token, ms", "25%"):
        assert words in ran.out
    assert "coloured digits" not in ran.out  # that is true of the bundled model alone


def test_times_are_medians_of_several_rounds(ask: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salience.cli.answering._PATIENCE_MS", float("inf"))
    assert json.loads(ask("--json").out)["records"][0]["config"]["rounds"] >= 7


def test_a_busy_machine_is_told_of(ask: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for load, told in ((0.0, False), (1e6, True)):
        monkeypatch.setattr("salience.lab.profile.machine_load.load_average", lambda load=load: load)
        ran = ask("--json")
        assert ("The machine has other work" in ran.err) == told
        assert (json.loads(ran.out)["records"][0]["config"]["busy_because"] is not None) == told


def test_json_is_the_document_and_nothing_else(ask: Run) -> None:
    ran = ask("--json", "--tokens", "3")
    assert ran.code == 0
    document = json.loads(ran.out)
    assert document["schema"] == 1
    (record,) = document["records"]
    assert record["config"]["n_visual_tokens"] == 16
    full, pruned = record["rows"]
    assert (full["method"], full["tokens_kept"]) == ("none", 16)
    assert (pruned["method"], pruned["tokens_kept"], pruned["tokens"]) == ("uniform", 3, 3)
    assert len(pruned["kept"]) == 3
    assert pruned["kept"] == sorted(pruned["kept"])
    assert all(row[column] > 0 for row in (full, pruned) for column in ("first_token_ms", "answer_ms"))


def test_keeping_everything_gives_the_same_answer(ask: Run) -> None:
    full, pruned = json.loads(ask("--json", "--keep", "1").out)["records"][0]["rows"]
    assert pruned["tokens_kept"] == 16
    assert pruned["answer"] == full["answer"]


def test_the_picture_shows_kept_cells_bright_and_the_rest_dimmed(ask: Run, tmp_path: Path) -> None:
    Image.new("RGB", (336, 336), (240, 120, 60)).save(tmp_path / "plain.png")
    ran = ask("--json", "--tokens", "5", "--picture", tmp_path / "deep" / "kept.png", image=tmp_path / "plain.png")
    kept = json.loads(ran.out)["records"][0]["rows"][1]["kept"]
    drawn = np.asarray(Image.open(tmp_path / "deep" / "kept.png")).astype(int)
    assert drawn.shape == (336, 336, 3)
    cells = drawn.reshape(4, 84, 4, 84, 3).transpose(0, 2, 1, 3, 4).reshape(16, -1, 3)
    for cell in range(16):
        if cell in kept:  # the model's own pixels, normalised and back: rounding moves a channel by one level at most
            assert np.abs(cells[cell] - (240, 120, 60)).max() <= 1
        else:
            assert cells[cell].max() < 240 / 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["kept.png"]


def test_out_holds_the_document_and_the_picture(ask: Run, tmp_path: Path) -> None:
    ran = ask("--json", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(ran.out)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["kept.png", "results.json"]


def test_random_follows_the_seed(ask: Run) -> None:
    def kept(seed: str) -> list[int]:
        ran = ask("--json", "--method", "random", "--seed", seed)
        found: list[int] = json.loads(ran.out)["records"][0]["rows"][1]["kept"]
        return found

    assert kept("1") == kept("1")
    assert len({tuple(kept(str(seed))) for seed in range(5)}) > 1


def test_a_scorer_is_named_by_its_folder(ask: Run, tmp_path: Path) -> None:
    from salience import Scorer

    Scorer(24).save_pretrained(tmp_path / "scorer")
    ran = ask("--json", "--method", tmp_path / "scorer", "--mass", ".5")
    assert ran.code == 0
    assert json.loads(ran.out)["records"][0]["rows"][1]["method"] == "saliency"


def test_an_animation_gives_a_note_on_stderr(ask: Run, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (336, 336), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    ran = ask("--json", image=tmp_path / "a.gif")
    assert ran.code == 0
    assert "first one is used" in ran.err
    json.loads(ran.out)


def squashing(model: Path, folder: Path) -> Path:
    """The same model with a processor that scales pictures to its square, whatever their shape."""
    file = shutil.copytree(model, folder) / "processor_config.json"
    about = json.loads(file.read_text())
    about["image_processor"] |= {"do_center_crop": False, "size": {"height": 336, "width": 336}}
    file.write_text(json.dumps(about))
    return folder


def bright_and_dark(drawn: Path) -> np.ndarray:
    """(H, W) which pixels of an orange picture were kept."""
    bright: np.ndarray = np.asarray(Image.open(drawn)).astype(int)[..., 0] > 200
    return bright


@pytest.mark.parametrize("size", [(900, 336), (450, 168), (200, 700), (336, 336)])
def test_what_was_kept_is_drawn_where_the_model_saw_it(
    ask: Run, tiny_vlm: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    image, kept = tmp_path / "own.png", tmp_path / "kept.png"
    Image.new("RGB", size, "orange").save(image)
    cropped = ask("--json", "--tokens", "16", "--picture", kept, image=image)
    side, (width, height) = min(size), size
    seen = np.zeros((height, width), dtype=bool)
    left, top = (width - side) // 2, (height - side) // 2
    seen[top : top + side, left : left + side] = True
    # the crop's edge is found within a pixel of the picture, or of the model's view where that is coarser
    edge = 2 * 4 * side * max(1, side // 336 + 1)
    assert (bright_and_dark(kept) != seen).sum() <= (0 if width == height else edge)
    assert ("the middle of the picture" in cropped.err) == (width != height)

    squashed = ask("--json", "--tokens", "4", "--picture", kept, image=image, model=squashing(tiny_vlm, tmp_path / "s"))
    cells = json.loads(squashed.out)["records"][0]["rows"][1]["kept"]
    grid = np.isin(np.arange(16), cells).reshape(4, 4)
    rows, columns = (np.arange(side) * 4 // side for side in (height, width))
    assert (bright_and_dark(kept) == grid[rows][:, columns]).all()
    assert ("whole picture, squashed" in squashed.err) == (width != height)
    assert "middle" not in squashed.err


@pytest.mark.parametrize(
    ("family", "region"),
    [
        ("paligemma", (0, 0, 300, 200)), ("gemma3", (0, 0, 300, 200)),  # squashed
        ("llava_next", (0, 0, 300, 200)),  # the first view of several is the whole picture
        ("pad", (0, -50, 300, 250)), ("crop", (50, 0, 250, 200)),
    ],
)  # fmt: skip
def test_the_part_that_is_seen_is_found_for_every_processor(
    family: str, region: tuple[int, ...], family_processor: Callable[[str], Any], tiny_processor: Callable[..., Any]
) -> None:
    from salience.cli.answering import prepare
    from salience.cli.kept_picture import seen_region

    if family in ("pad", "paligemma"):
        from transformers.models.llava import LlavaImageProcessorPil

        square = {"size": {"shortest_edge": 84}, "crop_size": {"height": 84, "width": 84}}
        # PaliGemma's own processor warns of numpy where it is called whole
        images = (
            LlavaImageProcessorPil(do_pad=True, **square)
            if family == "pad"
            else family_processor(family).image_processor
        )

        def pixels_of(each: Any) -> Any:
            return images(each, return_tensors="pt")["pixel_values"]
    else:
        processor = tiny_processor(84) if family == "crop" else family_processor(family)

        def pixels_of(each: Any) -> Any:
            return prepare(processor, each, "which digit is red")["pixel_values"]

    found, view = seen_region(pixels_of, Image.new("RGB", (300, 200), "green"))
    assert view is not None
    # a view's pixel is up to 7 of the picture's wide; its edges are told to half of that
    assert np.abs(np.subtract(found, region)).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "I;16", "L", "1"])
def test_odd_pictures_simply_work(ask: Run, tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"odd.{'tif' if mode == 'CMYK' else 'png'}"
    if mode == "I;16":
        Image.fromarray(np.full((336, 336), 40_000, dtype=np.uint16)).save(path)
    else:
        Image.new("RGB", (336, 336), "orange").convert(mode).save(path)
    assert ask("--json", image=path).code == 0


@pytest.mark.parametrize("keep", ["0", "1.2", "nan", "-1", "inf"])
def test_a_ratio_out_of_range_is_refused(ask: Run, keep: str) -> None:
    refused(ask("--keep", keep), "keep must be a number above 0 and at most 1")


def test_two_budgets_are_refused(ask: Run) -> None:
    refused(ask("--keep", ".5", "--tokens", "3"), "exactly one of keep, tokens and mass")


def test_more_tokens_than_there_are_is_refused(ask: Run) -> None:
    refused(ask("--tokens", "17"), "tokens", "16", "17")


def test_mass_without_scores_is_refused(ask: Run) -> None:
    refused(ask("--mass", ".9"), "mass")


def test_what_is_no_picture_is_refused(ask: Run, noise: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    refused(ask(image=tmp_path / "text.png"), "not a picture")
    refused(ask(image=tmp_path / "none.png"), "there is no file")
    whole = tmp_path / "whole.png"
    noise(size=(64, 64)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:1000])
    refused(ask(image=tmp_path / "cut.png"), "broken or cut off")
    Image.new("1", (20_000, 300)).save(tmp_path / "wide.png")
    refused(ask(image=tmp_path / "wide.png"), "20,000")


@pytest.mark.parametrize("question", ["", "  ", "\n"])
def test_an_empty_question_is_refused(ask: Run, question: str) -> None:
    refused(ask(question=question), "question", "empty")


def test_words_outside_the_vocabulary_are_named(ask: Run) -> None:
    refused(ask(question="which giraffe is red, pray?"), "'giraffe'", "'pray'", "vocabulary")


def test_an_image_token_in_the_question_is_refused(ask: Run) -> None:
    refused(ask(question="which digit is <image> red?"), "<image>")


def test_a_folder_that_is_no_usable_model_is_refused(ask: Run, tiny_vlm: Path, tmp_path: Path) -> None:
    refused(ask(model=tmp_path / "nowhere"), "neither a model's folder nor a hub id")
    (tmp_path / "empty").mkdir()
    refused(ask(model=tmp_path / "empty"), "no config.json")

    without = shutil.copytree(tiny_vlm, tmp_path / "without-weights")
    (without / "model.safetensors").unlink()
    refused(ask(model=without), "no weights")

    broken = shutil.copytree(tiny_vlm, tmp_path / "broken-weights")
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    refused(ask(model=broken), "can't be loaded")

    bert = shutil.copytree(tiny_vlm, tmp_path / "bert")
    (bert / "config.json").write_text('{"model_type": "bert"}')
    refused(ask(model=bert), "'bert'", "no vision-language model")

    mangled = shutil.copytree(tiny_vlm, tmp_path / "mangled")
    (mangled / "config.json").write_text("{")
    refused(ask(model=mangled), "JSON")

    mute = shutil.copytree(tiny_vlm, tmp_path / "mute")
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (mute / name).unlink()
    refused(ask(model=mute), "processor")


def test_weights_that_lack_tensors_are_refused(ask: Run, tiny_vlm: Path, tmp_path: Path) -> None:
    """transformers would draw them at random and only warn."""
    from safetensors.torch import load_file, save_file

    part = shutil.copytree(tiny_vlm, tmp_path / "part")
    weights = load_file(part / "model.safetensors")
    gone = next(name for name in weights if "multi_modal_projector" in name)
    del weights[gone]
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    refused(ask(model=part), "lack 1 tensor")


def test_saliency_without_a_scorer_names_fit_and_a_way_out(ask: Run) -> None:
    refused(ask("--method", "saliency"), "salience fit", "cls-attention")


def test_a_scorer_of_the_wrong_width_is_refused(ask: Run, tmp_path: Path) -> None:
    from salience import Scorer

    Scorer(10).save_pretrained(tmp_path / "narrow")
    refused(ask("--method", tmp_path / "narrow"), "10", "24")


def test_a_scorer_of_another_tower_is_refused(ask: Run, tmp_path: Path) -> None:
    from salience import Scorer

    Scorer(24, model={"family": "llava", "sample": [1.0]}).save_pretrained(tmp_path / "theirs")
    refused(ask("--method", tmp_path / "theirs"), "another vision tower", "salience fit")


def test_an_unknown_method_is_refused(ask: Run) -> None:
    refused(ask("--method", "telepathy"), "telepathy", "random")


def test_a_device_that_is_not_there_is_refused(ask: Run) -> None:
    refused(ask("--device", "cuda:99"), "cuda:99")
    refused(ask("--device", "abacus"), "abacus")


def test_an_out_that_cannot_be_written_is_refused_before_any_work(ask: Run, tmp_path: Path, picture: Path) -> None:
    # the model does not exist: had any work begun, that would have been the complaint
    refused(ask("--out", picture / "below", model=tmp_path / "nowhere"), "--out", "can't be written")
    refused(ask("--picture", picture / "kept.png", model=tmp_path / "nowhere"), "--picture", "can't be written")
    refused(ask("--picture", tmp_path / "kept.txt", model=tmp_path / "nowhere"), "--picture", ".png")
    refused(ask("--picture", tmp_path, model=tmp_path / "nowhere"), "--picture")


def test_brackets_in_answers_and_questions_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """The table's printer has marks of its own in brackets: [/INST] ended it in an error of its own."""
    from types import SimpleNamespace

    from salience import Budget
    from salience.cli.ask import AskConfig, _show

    answer = SimpleNamespace(text="[/INST] [bold]7", tokens=4, first_token_ms=1.0, answer_ms=2.0)
    answers: Any = SimpleNamespace(full=answer, pruned=answer, method="uniform")
    question = "is it [/red]?"
    config = AskConfig(image=Path(), question=question, method="uniform", budget=Budget(keep=0.5), seed=0)
    _show(config, answers)
    shown = capsys.readouterr().out
    assert "is it [/red]?" in shown and shown.count("[/INST] [bold]7") == 2
