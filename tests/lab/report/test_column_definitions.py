"""The full table and its definitions."""

from pathlib import Path

from salience.lab import report
from salience.lab.report.tradeoff.column_definitions import COLUMNS, COMPARE, csv, describe, table

ROWS = ({"method": "a", "keep": 0.025, "accuracy": 0.5, "accuracy_count": None, "extra": "x", "kv_bytes": 2097152},)


def test_columns_have_their_units_and_order() -> None:
    made = table(ROWS)
    assert [column.name for column in made.columns] == [
        "method",
        "keep",
        "accuracy",
        "kv_bytes",
        "accuracy_count",
        "extra",
    ]
    assert [text for text, _ in made.rows[0]] == ["a", "2.5%", "0.500", "2.00", "\u2013", "x"]
    assert [value for _, value in made.rows[0]] == ["a", "0.025", "0.5", "2097152.0", "", "x"]


def test_a_kind_describes_itself() -> None:
    assert describe("accuracy_is_there").meaning == "Accuracy on is-there questions alone."


def test_every_column_of_the_schema_is_defined() -> None:
    from salience.core.result_rows import ROW_COLUMNS

    known = {column.name for column in (*COLUMNS, *COMPARE)}
    missing = {name for names in ROW_COLUMNS.values() for name in names if not name.startswith("accuracy_")} - known
    assert missing == set()


def test_csv_is_as_measured() -> None:
    assert csv(ROWS).splitlines() == ["method,keep,accuracy,accuracy_count,extra,kv_bytes", "a,0.025,0.5,,x,2097152"]


def test_a_heading_has_the_unit_of_its_column() -> None:
    units = {"_tokens_per_s": "tokens/s", "_ms": "ms", "_ms_per_token": "ms/token", "_bytes": "MiB"}
    headed = [column for column in (*COLUMNS, *COMPARE) if any(column.name.endswith(unit) for unit in units)]
    assert len(headed) >= 9
    for column in headed:
        unit = next(shown for ending, shown in units.items() if column.name.endswith(ending))
        assert column.short.endswith(unit)
    assert "steps/s" not in (Path(report.__file__).parent / "templates" / "compare.html").read_text()
