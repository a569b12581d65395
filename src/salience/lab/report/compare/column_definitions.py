"""Definitions of a comparison's columns."""

from salience.lab.report.kit.full_table import Column

#: Name, short name, digits, meaning.
_DEFINED = (
    ("model", "model", 2, "The sequence model."),
    ("seed", "seed", 0, "Of the initial weights and of the order of batches."),
    ("epoch", "epoch", 0, "Passes over the training data."),
    ("train_loss", "train loss", 3, "Mean over the epoch, nats a target."),
    ("test_loss", "test loss", 3, "On data never trained on, nats a target."),
    ("test_accuracy", "test accuracy", 3, "On data never trained on, 0 to 1."),
    ("accuracy_low", "low", 3, "Lower end of its 95% interval, by bootstrap over test examples; of the last epoch."),
    ("accuracy_high", "high", 3, "Upper end of the same interval."),
    ("parameters", "parameters", 0, "Learnt numbers."),
    ("train_tokens_per_s", "training, tokens/s", 0,
     "Tokens (time steps of all sequences) that training reads a second; median over optimiser steps."),
)  # fmt: skip
COLUMNS = tuple(
    Column(name=name, short=short, digits=digits, meaning=meaning) for name, short, digits, meaning in _DEFINED
)
