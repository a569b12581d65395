"""What a call costs: floating point operations, wall clock and bytes, of any callable."""
