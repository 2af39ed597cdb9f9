"""Understudy's engine: train, sync, release, serve, compare, promote. It knows no screen."""

__version__ = "0.1.0"
