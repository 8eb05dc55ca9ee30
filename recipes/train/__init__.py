"""Recipes that train: the diffusion model, its VAE, students and teachers."""
