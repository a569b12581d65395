"""Loading of models for the commands: all that `salience.prune` takes, those of unknown families included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from salience.cli import loading
from salience.vlm.families import adapter_for
from salience.vlm.families.fallback import FallbackAdapter


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
    monkeypatch.setattr("salience.vlm.families.fallback.missing_in", lambda model, **_: "a language model")
    with pytest.raises(ValueError, match="it lacks a language model"):
        loading.load_vlm(str(elsewhere), "cpu")


@pytest.mark.parametrize("family", ["llava", "llava_siglip", "qwen2_5_vl", "idefics3", "gemma3", "mistral3"])
def test_without_weights_a_method_is_refused_as_it_is_with_them(tiny_family: Callable[[str], Any], family: str) -> None:
    """Before weights load, the commands refuse the same methods as `prune` does."""
    import torch

    import salience
    from salience.lab.profile.meta_model import build
    from salience.vlm.methods.registry import METHODS

    model = tiny_family(family).model()
    outline = build(model.config, torch.float32)

    def said(of: Any, method: str) -> str:
        try:
            salience.prune(of, method, keep=0.5).undo()
        except ValueError as error:
            return str(error)
        return ""

    for method in sorted({*METHODS} - {"oracle", "saliency"}):
        assert said(outline, method) == said(model, method)
