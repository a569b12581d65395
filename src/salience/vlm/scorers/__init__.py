"""Learned scorers of visual tokens: one architecture a file, named in `registry.py`; `folder.py` is the file format."""
