"""The kinds of latent diffusion models of diffusers that this library works with, a module each.

- `kind`: what a kind has to say
- `table`: all of them, and which one a model is of
"""
