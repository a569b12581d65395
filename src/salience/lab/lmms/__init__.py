"""lmms-eval's tasks on a pruned model."""
