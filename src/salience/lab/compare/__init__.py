"""The comparison of sequence models under identical training."""
