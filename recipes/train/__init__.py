"""Recipes that train: the VAE, the diffusion model, and students by timm's means.

- `vae`, `diffusion`, `with_timm`: the commands
- `perceptual`: the distance that the VAE's decoder is trained with
"""
