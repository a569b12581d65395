"""The main study: a trade-off on the bundled model and a comparison of sequence models."""
