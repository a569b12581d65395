"""What lmms-eval finds under its entry point group `lmms_eval.models`: the name `salience_llava`.

Imported by lmms-eval alone, which it needs; the model class is imported when that name is asked for.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """lmms-eval's description of a model class."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="salience_llava", simple_class_path="salience.lab.lmms.model.SalienceLlava")
