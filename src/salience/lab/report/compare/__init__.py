"""The chapter of a comparison record."""
