"""Pruning methods, one paper a file, named in `registry.py`."""
