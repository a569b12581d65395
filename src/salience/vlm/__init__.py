"""Pruning of visual tokens in an unmodified vision-language model."""
