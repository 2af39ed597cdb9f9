"""Kinds of work: data, models, preprocessing and metrics of each."""
