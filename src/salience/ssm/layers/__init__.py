"""Sequence layers, one a file."""
