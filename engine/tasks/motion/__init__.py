"""Motions: the Motion Diffusion Model's transformer encoder, its data and its sampling."""
