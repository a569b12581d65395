"""Evaluation of a vision-language model's answers."""
