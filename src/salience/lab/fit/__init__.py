"""Training of scorers, with the vision-language model frozen."""
