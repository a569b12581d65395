"""The full table and its definitions."""

from pathlib import Path

from conftest import row_of

from salience.core.result_rows import ROW_COLUMNS
from salience.lab import report
from salience.lab.report.compare.column_definitions import COLUMNS as COMPARE
from salience.lab.report.kit.full_table import describe, table
from salience.lab.report.tradeoff.column_definitions import COLUMNS as TRADEOFF

ROWS = (
    row_of(method="a", keep=0.025, accuracy=0.5, kv_bytes=2097152, accuracy_shape=0.25),
    row_of(method="b", keep=1.0, seed=3),
)


def test_columns_have_their_units_and_order() -> None:
    made = table(ROWS, TRADEOFF)
    names = [column.name for column in made.columns]
    assert names[:8] == [
        "method", "keep", "tokens_kept", "seed", "accuracy", "accuracy_low", "accuracy_high", "accuracy_shape",
    ]  # fmt: skip
    assert "exact_match" not in names and "accuracy_count" not in names  # what no row has and the schema does not ask
    row = dict(zip(names, made.rows[0], strict=True))
    shown = [row[name] for name in ("method", "keep", "accuracy", "kv_bytes", "accuracy_shape", "prefill_ms")]
    assert [text for text, _ in shown] == ["a", "2.5%", "0.500", "2.00", "0.250", "\u2013"]
    assert [value for _, value in shown] == ["a", "0.025", "0.5", "2097152.0", "0.25", ""]


def test_a_kind_describes_itself() -> None:
    assert describe("accuracy_is_there", {}).meaning == "Accuracy on is-there questions alone."


def test_every_column_of_the_schema_is_defined() -> None:
    known = {column.name for column in (*TRADEOFF, *COMPARE)}
    missing = {name for names in ROW_COLUMNS.values() for name in names if not name.startswith("accuracy_")} - known
    assert missing == set()


def test_csv_is_as_measured() -> None:
    head, first, second = table(ROWS, TRADEOFF).csv.splitlines()
    assert head.startswith("method,keep,tokens_kept,seed,accuracy,") and head.endswith(",accuracy_shape")
    assert first.startswith("a,0.025,,,0.5,") and first.endswith(",0.25") and second.startswith("b,1.0,,3,,")


def test_a_heading_has_the_unit_of_its_column() -> None:
    units = {"_tokens_per_s": "tokens/s", "_ms": "ms", "_ms_per_token": "ms/token", "_bytes": "MiB"}
    headed = [column for column in (*TRADEOFF, *COMPARE) if any(column.name.endswith(unit) for unit in units)]
    assert len(headed) >= 9
    for column in headed:
        unit = next(shown for ending, shown in units.items() if column.name.endswith(ending))
        assert column.short.endswith(unit)
    assert "steps/s" not in (Path(report.__file__).parent / "templates" / "compare.html").read_text()
