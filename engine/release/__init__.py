"""Releases: made from checked checkpoints, held by slots, promoted and rolled back as transactions."""
