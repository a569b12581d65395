"""Joins a pruning method and a model family on an unmodified model; alone owns what is put on the model."""

from salience.apply.entrance import prune
from salience.apply.inputs import Positions, PrunedInputs, model_arguments, project_kept, pruned_inputs
from salience.apply.pruned import Pruned
from salience.apply.trace import ImageTrace, Trace

__all__ = [
    "ImageTrace", "Positions", "Pruned", "PrunedInputs", "Trace", "model_arguments", "project_kept", "prune",
    "pruned_inputs",
]  # fmt: skip
