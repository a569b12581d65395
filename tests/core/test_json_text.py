"""JSON of others: read, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from salience.core.files import DEEPEST, read_json
from salience.core.record import read
from salience.ssm.models.weights import read_json as read_object


def test_read(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text('{"a": [1, {"b": "\\u00e9"}]}', encoding="utf-8")
    assert read_json(file) == {"a": [1, {"b": "é"}]}
    file.write_text("[" * DEEPEST + "]" * DEEPEST)
    assert read_json(file)


@pytest.mark.parametrize("reader", [read_json, read, read_object], ids=["any", "results", "weights"])
@pytest.mark.parametrize(("text", "said"), [
    ("{", "is not JSON"), (b"\xff\xfe{}", "is not JSON"),
    ("[" * 101 + "]" * 101, "more than 100 deep"), ('{"a":' * 300_000 + "1" + "}" * 300_000, "more than 100 deep"),
], ids=["broken", "bytes", "deep", "very deep"])  # fmt: skip
def test_refused(tmp_path: Path, text: str | bytes, said: str, reader: object) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=said) as caught:
        reader(file)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
