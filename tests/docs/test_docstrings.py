"""Docstrings become Markdown on the API pages."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from markdown import ROOT


@pytest.fixture(scope="module")
def extension() -> Any:
    pytest.importorskip("griffe", reason="needs the extra `docs`, which `make docs` installs")
    spec = importlib.util.spec_from_file_location("docs_docstrings", ROOT / "docs" / "_build" / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sections_and_fields_become_lists(extension: Any) -> None:
    text = """Do it (B, L).

a: first, <b> and **c**
   more   d, e: others

Note: a paragraph
that says: nothing.

Args:    x: one   y, z: two,
         or three
Returns: a `<T>`
Raises:  ValueError when not"""
    assert [line for line in extension.as_markdown(text).splitlines() if line] == [
        "Do it (B, L).",
        r"- `a`: first, &lt;b> and \*\*c\*\* more",
        "- `d, e`: others",
        "Note: a paragraph",
        "that says: nothing.",
        "**Args:**",
        "- `x`: one",
        "- `y, z`: two, or three",
        "**Returns:** a `<T>`",
        "**Raises:** ValueError when not",
    ]
