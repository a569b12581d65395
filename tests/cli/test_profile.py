"""`salience profile`: a table for people, the document for programs, one sentence for bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.core.result_rows import ROW_COLUMNS

Run = Callable[..., Any]


class Watched:
    """A machine that was seen to be idle, or busy."""

    def __init__(self, load: float, busy: str | None) -> None:
        self.seen = {"load_average_start": load, "floor_spread": 1.1, "busy_because": busy}

    def observed(self) -> dict[str, Any]:
        return self.seen


IDLE, BUSY = Watched(0.1, None), Watched(7.9, "The load average was 7.9 at the start of the run, on 2 cores.")


@pytest.fixture(scope="module")
def shape(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's config.json and nothing else."""
    folder = tmp_path_factory.mktemp("shape")
    shutil.copy(tiny_vlm / "config.json", folder)
    return folder


@pytest.fixture(autouse=True)
def roof(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's limits are measured in one test of `profiling`; here they are given."""
    import importlib

    from salience.lab.profile.roofline import Roofline

    module = importlib.import_module("salience.lab.profile.profile_model")
    limits = Roofline(flops_per_s=1e11, bytes_per_s=1e10, launch_s=1e-5, name="made up")
    monkeypatch.setattr(module, "measure_roof", lambda *_: limits)
    monkeypatch.setattr(module, "Machine", lambda: IDLE)


def test_json_from_a_config_alone(salience: Run, shape: Path, tmp_path: Path) -> None:
    ran = salience(
        "profile", shape, "--keep", "1,0.25", "--text-tokens", "8", "--device", "meta", "--dtype", "float16",
        "--batch", "2", "--images", "2", "--decode", "3", "--json", "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 0
    document = json.loads(ran.out)
    assert document == json.loads((tmp_path / "out" / "results.json").read_text())
    (record,) = document["records"]
    assert record["kind"] == "profile"
    assert record["config"]["dtype"] == "float16"
    assert [(row["keep"], row["tokens_kept"]) for row in record["rows"]] == [(1.0, 16), (0.25, 4)]
    for row in record["rows"]:
        assert set(ROW_COLUMNS["profile"]) <= set(row)
        assert row["vision_ms"] is None
        # keys and values of 2 layers, 2 rows, 32 wide, 2 bytes
        assert row["kv_bytes"] == 2 * 2 * 2 * 32 * 2 * (8 + 2 * row["tokens_kept"] + 3)


def test_a_table_with_the_clock_where_there_are_weights(salience: Run, tiny_vlm: Path) -> None:
    ran = salience("profile", tiny_vlm, "--keep", "1,0.25", "--text-tokens", "8")
    assert ran.code == 0
    for words in ("1 (16)", "0.25 (4)", "KV cache", "measured / predicted", "vision tower", "made up"):
        assert words in ran.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "0"], "keep"),
        (["--keep", "1,1.5"], "1.5"),
        (["--keep", "nan"], "nan"),
        (["--keep", "half"], "half"),
        (["--picture", "big"], "big"),
        (["--text-tokens", "0"], "text-tokens"),
        (["--dtype", "int3"], "int3"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_bad_options(salience: Run, shape: Path, options: list[str], words: str) -> None:
    ran = salience("profile", shape, *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err and "Traceback" not in ran.err


def test_no_model(salience: Run, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        ran = salience("profile", tmp_path, "--device", "meta")
        assert (ran.code, ran.out) == (2, "")
        assert words in ran.err and len(ran.err.strip().splitlines()) == 1

    refused("no config.json")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    refused("no vision-language model")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody-knows"}))
    refused("nobody-knows")


def test_a_busy_machine_is_told_of(salience: Run, shape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    assert "busy_because" in (config := _config(salience("profile", shape, "--keep", "1", "--json")))
    assert config["busy_because"] is None
    assert "load average" not in salience("profile", shape, "--keep", "1").out
    monkeypatch.setattr(importlib.import_module("salience.lab.profile.profile_model"), "Machine", lambda: BUSY)
    config = _config(salience("profile", shape, "--keep", "1", "--json"))
    assert (config["load_average"], config["roof_spread"], config["busy_because"]) == (
        7.9,
        1.1,
        BUSY.seen["busy_because"],
    )
    said = " ".join(salience("profile", shape, "--keep", "1").out.split())
    assert "predicted times are too long. The load average was 7.9 at the start of the run, on 2 cores." in said


def test_the_processors_own_settings_are_followed_as_ask_does(
    salience: Run,
    tiny_family: Callable[[str], Any],
    family_processor: Callable[[str], Any],
    picture: Path,
    tmp_path: Path,
) -> None:
    tiny_family("idefics3").model().save_pretrained(tmp_path / "model")
    family_processor("idefics3").save_pretrained(tmp_path / "model")  # do_image_splitting is False there
    asked = salience(
        "ask", picture, "which digit is red ?", "--model", tmp_path / "model", "--method", "uniform", "--json"
    )
    tokens = json.loads(asked.out)["records"][0]["rows"][0]["tokens_kept"]
    config = _config(salience("profile", tmp_path / "model", "--keep", "1", "--device", "meta", "--json"))
    assert tokens == config["n_visual_tokens"] == 9
    assert config["processor"] == "Idefics3ImageProcessorPil" and config["processor_note"] is None
    ran = salience("profile", tmp_path / "model", "--keep", "1", "--device", "meta")
    assert "the model's own Idefics3ImageProcessorPil prepares them" in " ".join(ran.out.split())


def test_without_a_processor_the_table_says_so(salience: Run, shape: Path) -> None:
    ran = salience("profile", shape, "--keep", "1", "--device", "meta")
    assert "family's usual settings: there is no processor_config.json" in " ".join(ran.out.split())


def test_a_processor_that_can_not_be_read_is_refused(salience: Run, shape: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shape, tmp_path / "broken")
    (folder / "preprocessor_config.json").write_text("{half")
    ran = salience("profile", folder, "--keep", "1", "--device", "meta")
    assert (ran.code, ran.out) == (2, "")
    assert "the processor's settings" in ran.err and len(ran.err.strip().splitlines()) == 1


def _config(ran: Any) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)["records"][0]["config"]
    return found
