"""Entry point of lmms-eval, in its group `lmms_eval.models`: the model `salience_llava`.

Only lmms-eval imports this module. It imports the model class when that name is asked for.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """lmms-eval's description of a model class."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="salience_llava", simple_class_path="salience.lab.lmms.model.SalienceLlava")
