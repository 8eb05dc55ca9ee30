"""Sampling: class statistics -> a group of inverted latents."""
