"""Costs of a call: floating point operations, wall clock and bytes."""
