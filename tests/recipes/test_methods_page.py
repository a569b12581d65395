"""docs/methods.md and its figure are what the results file that they name says: nothing there is typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "recipes")
    from methods_page import PAGE, loaded, page

    text = PAGE.read_text(encoding="utf-8")
    named = re.findall(r"\(\.\./(benchmarks/results/[^)]+\.json)\)", text)
    assert len(named) == 3, "the page names the results of methods before the language model, inside it, on easy-VQA"
    first, inside, easy = (loaded(ROOT / name) for name in named)
    assert page(*first, inside, easy) == text
