"""Tiny random models of any transformers class, and calls of them with pictures."""
