"""Training of sequence models under one budget."""
