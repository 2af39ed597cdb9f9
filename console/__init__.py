"""Understudy's operator console."""
