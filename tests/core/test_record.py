"""The results document: what it refuses, and that it is never half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from salience.core import record
from salience.core.files import write_atomic


def _tradeoff() -> record.Record:
    row: dict[str, Any] = dict.fromkeys(record.ROW_COLUMNS["tradeoff"])
    config: dict[str, Any] = dict.fromkeys(record.CONFIG_KEYS["tradeoff"])
    return {"kind": "tradeoff", "config": config, "rows": [{**row, "method": "random", "keep": 0.5, "accuracy": 0.25}]}


def test_a_document_with_a_quick_record_is_marked_as_a_whole() -> None:
    quick, whole = _tradeoff(), _tradeoff()
    quick["config"]["quick"] = True
    assert record.document([whole, quick])["environment"]["quick"] is True
    assert "quick" not in record.document([whole])["environment"]


def test_round_trip(tmp_path: Path) -> None:
    written = record.document([_tradeoff()])
    path = record.write(tmp_path / "deep" / "results.json", written)
    assert record.read(path) == written
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    environment = written["environment"]
    assert {
        "python",
        "torch",
        "transformers",
        "salience",
        "cpu",
        "threads",
        "platform",
        "commit",
        "date",
        "device",
    } <= set(environment)


def test_a_missing_column_is_named() -> None:
    found = _tradeoff()
    del found["rows"][0]["answer_kl"]
    with pytest.raises(ValueError, match=r"records\[0\].rows\[0\] lacks answer_kl"):
        record.document([found])


def test_a_missing_config_key_is_named() -> None:
    found = _tradeoff()
    del found["config"]["majority_accuracy"]
    with pytest.raises(ValueError, match=r"records\[0\].config lacks majority_accuracy"):
        record.document([found])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    found = _tradeoff()
    found["rows"][0]["accuracy"] = value
    with pytest.raises(ValueError, match=r"rows\[0\].accuracy is (nan|inf)"):
        record.document([found])


def test_kinds_and_schema_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be one of compare, profile, tradeoff"):
        record.document([{"kind": "guess"}])
    (tmp_path / "old.json").write_text(json.dumps({"schema": 7}))
    with pytest.raises(ValueError, match="schema is 7"):
        record.read(tmp_path / "old.json")
    (tmp_path / "broken.json").write_text('{"schema": 1')
    with pytest.raises(ValueError, match="is not JSON"):
        record.read(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="is an object"):
        record.read(tmp_path / "list.json")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = write_atomic(tmp_path / "results.json", "old")

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("salience.core.files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(target, "new and longer")
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
