"""Documents that can be read and documents that can't."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.core.record import TradeoffRecord, load_results

Build = Callable[..., dict[str, Any]]


def test_a_path_brings_its_own_folder(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(build(tmp_path, examples=1)))
    loaded = load_results(path, Path("/elsewhere"))
    assert loaded.folder == tmp_path
    record = loaded.of_kind(TradeoffRecord)[0]
    assert record.examples[0].image == "figures/sample_0.png"
    assert {row.method for row in record.rows} == set(record.config["methods"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 2}, "schema is 2"),
        ({"records": []}, "there are no records"),
        ({"records": [{"kind": "poem", "config": {}, "rows": []}]}, "poem"),
    ],
)
def test_what_is_no_results_document_is_refused(build: Build, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_results({**build(), **change}, Path())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"keep": 1.2}, r"records\[0\]\.rows\[0\]: keep is 1.2"),
        ({"method": None}, r"records\[0\]\.rows\[0\]\.method is None"),
    ],
)
def test_a_bad_row_is_named(build: Build, change: dict[str, Any], told: str) -> None:
    document = build()
    document["records"][0]["rows"][0].update(change)
    with pytest.raises(ValueError, match=told):
        load_results(document, Path())


def test_a_tradeoff_without_rows_is_refused(build: Build) -> None:
    document = build()
    document["records"][0]["rows"] = []
    with pytest.raises(ValueError, match="has no rows"):
        load_results(document, Path())


@pytest.mark.parametrize("content", [None, "no json", "[]"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"results\.json"):
        load_results(path, Path())
