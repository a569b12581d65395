"""`salience profile`: a table for people, the document for programs, one sentence for bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.core.record import ROW_COLUMNS

Run = Callable[..., Any]


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

    from salience.profiling.roof import Roof

    module = importlib.import_module("salience.profiling.profile")
    limits = Roof(flops_per_s=1e11, bytes_per_s=1e10, launch_s=1e-5, name="made up")
    monkeypatch.setattr(module, "measure_roof", lambda *_: limits)


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
