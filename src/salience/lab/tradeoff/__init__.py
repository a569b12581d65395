"""The trade-off study: pruning methods at several budgets on one vision-language model."""
