"""Learned scorers of visual tokens: one architecture a file, named in `scorer_config.py`."""
