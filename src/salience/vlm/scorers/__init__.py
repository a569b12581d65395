"""Learned scorers of visual tokens, one architecture a file."""
