"""Recipes that train: the VAE, the diffusion model, and students by published protocols or by timm's means.

- `vae`, `diffusion`, `student`, `with_timm`: the commands
- `student_settings`, `student_inputs`, `training_sets`, `student_export`: the parts of `student`
- `perceptual`: the distance that the VAE's decoder is trained with
"""
