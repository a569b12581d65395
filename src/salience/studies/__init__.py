"""Studies: they run comparisons and return records; the report reads those."""
