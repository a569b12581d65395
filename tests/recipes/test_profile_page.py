"""docs/profile.md is what the results file that it names says: nothing there is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "recipes")
    from profile_page import MODELS, PAGE, command, page

    text = PAGE.read_text(encoding="utf-8")
    (named,) = re.findall(r"\(\.\./(benchmarks/results/[^)]+\.json)\)", text)
    document = json.loads((ROOT / named).read_text(encoding="utf-8"))
    assert page(document, named) == text
    for name in MODELS:
        assert (ROOT / command(name)[2] / "config.json").is_file()
