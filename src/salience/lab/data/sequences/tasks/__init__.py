"""One sequence task a file. To add one: a module with `OPTIONS` and `build`, and a line in `sequences.TASKS`."""
