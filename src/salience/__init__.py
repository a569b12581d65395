"""salience: keep what matters of a long sequence and of a picture's visual tokens.

Importing this package loads no model library; every public name comes in at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# One static table, "module" or "module:name": nothing here is imported before somebody asks for it.
_LAZY = {
    "BiMamba": "salience.ssm.layers.bimamba:BiMamba",
    "Budget": "salience.vlm.methods.budget:Budget",
    "Fused": "salience.ssm.hf.fused:Fused",
    "Mamba": "salience.ssm.layers.mamba:Mamba",
    "MambaLM": "salience.ssm.models.mamba_lm:MambaLM",
    "Method": "salience.vlm.methods.base:Method",
    "Oracle": "salience.vlm.methods.oracle:Oracle",
    "Pruned": "salience.vlm.handle:Pruned",
    "Scorer": "salience.vlm.scorers.scorer:Scorer",
    "SequenceModel": "salience.ssm.models.sequence_model:SequenceModel",
    "bundled_model": "salience.core.files:bundled_model",
    "causal_conv1d": "salience.ops.causal_conv1d:causal_conv1d",
    "compat": "salience.ssm.compat",
    "data": "salience.lab.data",
    "explain": "salience.core.backend:explain",
    "fuse": "salience.ssm.hf.fuse:fuse",
    "parameter_groups": "salience.ssm.layers.parameter_groups:parameter_groups",
    "profile": "salience.lab.profile.profile_model:profile",
    "prune": "salience.vlm.prune:prune",
    "selective_scan": "salience.ops.selective_scan:selective_scan",
}

if TYPE_CHECKING:
    from salience.core.backend import explain as explain
    from salience.core.files import bundled_model as bundled_model
    from salience.lab import data as data
    from salience.lab.profile.profile_model import profile as profile
    from salience.ops.causal_conv1d import causal_conv1d as causal_conv1d
    from salience.ops.selective_scan import selective_scan as selective_scan
    from salience.ssm import compat as compat
    from salience.ssm.hf.fuse import fuse as fuse
    from salience.ssm.hf.fused import Fused as Fused
    from salience.ssm.layers.bimamba import BiMamba as BiMamba
    from salience.ssm.layers.mamba import Mamba as Mamba
    from salience.ssm.layers.parameter_groups import parameter_groups as parameter_groups
    from salience.ssm.models.mamba_lm import MambaLM as MambaLM
    from salience.ssm.models.sequence_model import SequenceModel as SequenceModel
    from salience.vlm.handle import Pruned as Pruned
    from salience.vlm.methods.base import Method as Method
    from salience.vlm.methods.budget import Budget as Budget
    from salience.vlm.methods.oracle import Oracle as Oracle
    from salience.vlm.prune import prune as prune
    from salience.vlm.scorers.scorer import Scorer as Scorer

__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    target = _LAZY.get(name)
    if target is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = target.partition(":")
    value = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
