"""docs/methods.md and its figure are what the results file that they name says: nothing there is typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "recipes")
    from methods_page import PAGE, page

    from salience.report.load import load_results

    text = PAGE.read_text(encoding="utf-8")
    named = re.search(r"\(\.\./(benchmarks/results/[^)]+\.json)\)", text)
    assert named is not None, "the page names no results file"
    path = ROOT / named[1]
    assert page(load_results(path, path.parent), named[1]) == text
