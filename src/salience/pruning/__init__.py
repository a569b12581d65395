"""Methods that choose which visual tokens stay: they see tensors and a grid, never a model family."""
