"""The lowest floor: plain types, the record of results, and the choice of a device."""
