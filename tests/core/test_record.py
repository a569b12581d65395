"""The results document: what it refuses, and that it is never half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from salience.core import record
from salience.core.files import write_atomic
from salience.core.result_rows import ROW_COLUMNS, CompareRow, ProfileRow, TradeoffRow
from salience.core.result_tables import AccuracyDifference


def _tradeoff() -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(ROW_COLUMNS["tradeoff"])
    config: dict[str, Any] = dict.fromkeys(record.CONFIG_KEYS["tradeoff"])
    return {"kind": "tradeoff", "config": config, "rows": [{**row, "method": "random", "keep": 0.5, "accuracy": 0.25}]}


def _typed(found: dict[str, Any]) -> record.TradeoffRecord:
    return record.TradeoffRecord.from_json({name: value for name, value in found.items() if name != "kind"}, "record")


def _validate(*records: dict[str, Any]) -> None:
    record.validate({"schema": record.SCHEMA, "environment": {}, "records": list(records)})


def test_a_document_with_a_quick_record_is_marked_as_a_whole() -> None:
    quick, whole = _tradeoff(), _tradeoff()
    quick["config"]["quick"] = True
    assert record.document([_typed(whole), _typed(quick)])["environment"]["quick"] is True
    assert "quick" not in record.document([_typed(whole)])["environment"]


def test_round_trip(tmp_path: Path) -> None:
    written = record.document([_typed(_tradeoff())])
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
        _validate(found)


def test_a_missing_config_key_is_named() -> None:
    found = _tradeoff()
    del found["config"]["majority_accuracy"]
    with pytest.raises(ValueError, match=r"records\[0\].config lacks majority_accuracy"):
        _validate(found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value: float) -> None:
    found = _tradeoff()
    found["rows"][0]["accuracy"] = value
    with pytest.raises(ValueError, match=r"rows\[0\].accuracy is (nan|inf)"):
        _validate(found)


def test_kinds_and_schema_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be one of compare, profile, tradeoff"):
        _validate({"kind": "guess"})
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


def _scenes_row() -> TradeoffRow:
    return TradeoffRow(
        method="random", keep=0.25, seed=3, tokens_kept=144, accuracy=0.5, accuracy_by_kind={"count": 0.2, "shape": 0.1}
    )


def test_a_row_is_written_with_null_for_what_was_not_measured_and_reads_back() -> None:
    row = _scenes_row()
    written = row.to_json()
    assert tuple(written)[: len(ROW_COLUMNS["tradeoff"])] == ROW_COLUMNS["tradeoff"]
    assert written["accuracy_count"] == 0.2 and written["accuracy_shape"] == 0.1 and written["prefill_ms"] is None
    again = TradeoffRow.from_json(json.loads(json.dumps(written)), "row")
    assert again.to_json() == written
    assert again.numbers() == {
        "keep": 0.25, "tokens_kept": 144, "seed": 3, "accuracy": 0.5, "accuracy_count": 0.2, "accuracy_shape": 0.1,
    }  # fmt: skip


def test_typed_records_make_a_document_that_reads_back() -> None:
    epoch = CompareRow(model="mamba", seed=0, epoch=1, train_loss=0.5)
    profile = ProfileRow(keep=0.5, tokens_kept=288, flops_total=1e9)
    apart = AccuracyDifference(method="a", keep=0.5, against="random", difference=0.1, low=0.0, high=0.2)
    config = dict.fromkeys(record.CONFIG_KEYS["tradeoff"]) | dict.fromkeys(record.CONFIG_KEYS["compare"])
    records = (
        record.TradeoffRecord(config=config, rows=(_scenes_row(),), differences=(apart,)),
        record.CompareRecord(config=config, rows=(epoch,)),
        record.ProfileRecord(rows=(profile,)),
    )
    read = record.parse(json.loads(json.dumps(record.document(records))))
    assert [type(found) for found in read.records] == [type(found) for found in records]
    assert read.of_kind(record.TradeoffRecord)[0].differences == (apart,)
    assert read.of_kind(record.CompareRecord)[0].rows == (epoch,)
    assert read.of_kind(record.ProfileRecord)[0].rows == (profile,)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prefill_ms": "fast"}, r"rows\[0\]\.prefill_ms is 'fast', but must be a number"),
        ({"accuracy_count": "most"}, r"rows\[0\]\.accuracy_by_kind\.count is 'most', but must be a number"),
        ({"accuracy": True}, r"rows\[0\]\.accuracy is True, but must be a number"),
        ({"seed": 0.5}, r"rows\[0\]\.seed is 0.5, but must be a whole number"),
        ({"keep": 0.0}, r"rows\[0\]: keep is 0.0, but must be above 0 and at most 1"),
        ({"method": ""}, r"rows\[0\]: method is '', but must be a name"),
        ({"prefil_ms": 1.0}, r"rows\[0\] has prefil_ms, which this version does not know"),
    ],
)
def test_what_is_wrong_in_a_row_is_named_with_row_and_column(change: dict[str, Any], told: str) -> None:
    found = _tradeoff()
    found["rows"][0].update(change)
    with pytest.raises(ValueError, match=told):
        _validate(found)


def test_the_recorded_results_are_readable() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))
    documents = [found for file in files if "records" in (found := json.loads(file.read_text()))]
    assert len(documents) > 10
    for found in documents:
        for read, raw in zip(record.parse(found).records, found["records"], strict=True):
            written = read.to_json()
            assert all(
                {name: row.get(name) for name in before} == before
                for row, before in zip(written["rows"], raw["rows"], strict=True)
            )
            tables = [name for name in raw if name not in ("rows", "config", "kind")]
            assert {name: written[name] for name in tables} == {name: raw[name] for name in tables}
