"""State space models: layers, whole models, and transformers' models on this package's operators."""
