"""Fitting with the vision-language model frozen, and running many questions behind one picture."""
