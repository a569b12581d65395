"""Readers of file formats, shared by the tasks."""
