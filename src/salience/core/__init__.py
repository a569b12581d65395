"""Ground floor: backend and device selection, plain types, files, progress, and the record of results."""
