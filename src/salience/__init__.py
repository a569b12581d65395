"""salience: keep what matters of a long sequence and of a picture's visual tokens.

Importing this package loads no model library; every public name comes in at its first use.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# One static table, "module" or "module:name": nothing here is imported before somebody asks for it.
_LAZY = {
    "BiMamba": "salience.ssm.bimamba:BiMamba",
    "Budget": "salience.pruning.budget:Budget",
    "Mamba": "salience.ssm.mamba:Mamba",
    "MambaLM": "salience.models.mamba_lm:MambaLM",
    "Method": "salience.pruning.base:Method",
    "Oracle": "salience.pruning.methods.oracle:Oracle",
    "Scorer": "salience.pruning.scorer:Scorer",
    "SequenceModel": "salience.models.sequence_model:SequenceModel",
    "causal_conv1d": "salience.ops.causal_conv1d:causal_conv1d",
    "compat": "salience.compat",
    "data": "salience.data",
    "explain": "salience.core.backend:explain",
    "fuse": "salience.fuse",  # the module, which is called as its function
    "parameter_groups": "salience.ssm.parameters:parameter_groups",
    "profile": "salience.profiling.profile:profile",
    "prune": "salience.apply:prune",
    "selective_scan": "salience.ops.selective_scan:selective_scan",
}

if TYPE_CHECKING:
    from salience import compat as compat
    from salience import data as data
    from salience.apply import prune as prune
    from salience.core.backend import explain as explain
    from salience.fuse import fuse as fuse
    from salience.models.mamba_lm import MambaLM as MambaLM
    from salience.models.sequence_model import SequenceModel as SequenceModel
    from salience.ops.causal_conv1d import causal_conv1d as causal_conv1d
    from salience.ops.selective_scan import selective_scan as selective_scan
    from salience.profiling.profile import profile as profile
    from salience.pruning.base import Method as Method
    from salience.pruning.budget import Budget as Budget
    from salience.pruning.methods.oracle import Oracle as Oracle
    from salience.pruning.scorer import Scorer as Scorer
    from salience.ssm.bimamba import BiMamba as BiMamba
    from salience.ssm.mamba import Mamba as Mamba
    from salience.ssm.parameters import parameter_groups as parameter_groups

__all__ = [
    "BiMamba",
    "Budget",
    "Mamba",
    "MambaLM",
    "Method",
    "Oracle",
    "Scorer",
    "SequenceModel",
    "__version__",
    "bundled_model",
    "causal_conv1d",
    "compat",
    "data",
    "explain",
    "fuse",
    "parameter_groups",
    "profile",
    "prune",
    "selective_scan",
]


def bundled_model() -> Path:
    """The bundled model's folder: a stock LLaVA with its processor, for `from_pretrained`, and its scorer."""
    return Path(__file__).parent / "bundled" / "llava-scenes"


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
