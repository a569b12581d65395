"""Pruning methods, one paper a file, named in `registry.py`."""

from salience.vlm.methods.registry import METHODS, method_class

__all__ = ["METHODS", "method_class"]
