"""Which models the commands load: those that `salience.prune` takes, the ones of unknown families included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from salience.cli import loading
from salience.families import adapter_for
from salience.families.fallback import FallbackAdapter


@pytest.fixture
def elsewhere(tiny_family: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model whose family has no file of its own, its processor left aside."""
    tiny_family("aya_vision").model().save_pretrained(tmp_path)
    monkeypatch.setattr(loading, "_processor", lambda source: SimpleNamespace())
    return tmp_path


def test_a_family_without_a_file_of_its_own_is_loaded(elsewhere: Path) -> None:
    loaded = loading.load_vlm(str(elsewhere), "cpu")
    assert isinstance(adapter_for(loaded.model), FallbackAdapter) and not loaded.bundled


def test_what_the_fallback_can_not_take_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salience.families.fallback.missing_in", lambda model: "a language model")
    with pytest.raises(ValueError, match="it lacks a language model"):
        loading.load_vlm(str(elsewhere), "cpu")
