"""Layers: selective state spaces on this package's operators, one layer a file."""
