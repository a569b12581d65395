"""The chapter of a trade-off record."""
