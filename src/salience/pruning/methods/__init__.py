"""The methods, one a file, found by name in one static table."""

from __future__ import annotations

import importlib

from salience.pruning.base import Method

METHODS = {
    "cls-attention": "salience.pruning.methods.cls_attention:ClsAttention",
    "divprune": "salience.pruning.methods.divprune:DivPrune",
    "fastervlm": "salience.pruning.methods.cls_attention:ClsAttention",  # the paper's own name for it
    "fastv": "salience.pruning.methods.fastv:FastV",
    "oracle": "salience.pruning.methods.oracle:Oracle",
    "prumerge": "salience.pruning.methods.prumerge:PruMerge",
    "prumerge+": "salience.pruning.methods.prumerge:PruMergePlus",
    "pyramiddrop": "salience.pruning.methods.pyramiddrop:PyramidDrop",
    "random": "salience.pruning.methods.random:Random",
    "saliency": "salience.pruning.methods.saliency:Saliency",
    "sparsevlm": "salience.pruning.methods.sparsevlm:SparseVLM",
    "temporal": "salience.pruning.methods.temporal:Temporal",
    "tome": "salience.pruning.methods.tome:ToMe",
    "uniform": "salience.pruning.methods.uniform:Uniform",
    "visionzip": "salience.pruning.methods.visionzip:VisionZip",
    "vispruner": "salience.pruning.methods.vispruner:VisPruner",
}


def method_class(name: str) -> type[Method]:
    """The class behind a method's name.

    Raises:  ValueError when there is no such method
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(sorted(METHODS))}, not {name!r}.")
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found
