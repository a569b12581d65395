"""Pruning methods in one static table: name -> "module:class"."""

from __future__ import annotations

import importlib

from salience.vlm.methods.base import Method
from salience.vlm.methods.class_path import import_method_class, is_class_path

METHODS = {
    "cls-attention": "salience.vlm.methods.cls_attention:ClsAttention",
    "divprune": "salience.vlm.methods.divprune:DivPrune",
    "fastervlm": "salience.vlm.methods.cls_attention:ClsAttention",  # the paper's own name for it
    "fastv": "salience.vlm.methods.fastv:FastV",
    "oracle": "salience.vlm.methods.oracle:Oracle",
    "prumerge": "salience.vlm.methods.prumerge:PruMerge",
    "prumerge+": "salience.vlm.methods.prumerge:PruMergePlus",
    "pyramiddrop": "salience.vlm.methods.pyramiddrop:PyramidDrop",
    "random": "salience.vlm.methods.random:Random",
    "saliency": "salience.vlm.methods.saliency:Saliency",
    "sparsevlm": "salience.vlm.methods.sparsevlm:SparseVLM",
    "temporal": "salience.vlm.methods.temporal:Temporal",
    "tome": "salience.vlm.methods.tome:ToMe",
    "uniform": "salience.vlm.methods.uniform:Uniform",
    "visionzip": "salience.vlm.methods.visionzip:VisionZip",
    "vispruner": "salience.vlm.methods.vispruner:VisPruner",
}


def method_class(name: str) -> type[Method]:
    """The class behind a method's name, or behind "module:Class".

    Raises:  ValueError when there is no such method
    """
    if is_class_path(name):
        return import_method_class(name)
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(sorted(METHODS))}, not {name!r}.")
    module, _, attribute = METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(module), attribute)
    return found
