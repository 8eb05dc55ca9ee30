"""What a student sees and is tested on: names of data sets, files and folders -> images in the real labels.

- `image_set`: images with labels, and what the labels mean
- `real_images`: the real images of a data set, and their fixed split
- `generated_images`: what a diffusion model makes, as tensors
- `training_sets`: distilled sets and the baselines that a fair table sets them against
"""
