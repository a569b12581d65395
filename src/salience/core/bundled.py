"""The model that is part of this package."""

from __future__ import annotations

from pathlib import Path


def bundled_model() -> Path:
    """Folder of the bundled model: a stock LLaVA with its processor, for `from_pretrained`, and its scorer."""
    return Path(__file__).parents[1] / "bundled" / "llava-scenes"
