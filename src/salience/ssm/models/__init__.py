"""Whole models made of the layers, and the published files they read and write."""
