"""Rented and remote machines: what a run costs where, launching it there, and never paying past the budget."""
