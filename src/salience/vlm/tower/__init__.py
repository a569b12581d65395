"""Vision towers: their output as views, their attention, merging inside them, and their fingerprints."""
