"""Dropping of visual tokens between the layers of the language model."""
