"""What a student sees and is tested on: names of data sets, files and folders -> images in the real labels.

- `image_set`: images with labels, and what the labels mean
- `real_images`: the real images of a data set, and their fixed split
- `generated_images`: what a diffusion model makes, as tensors
- `opening`: anybody's distilled images, of a folder, Parquet, torchvision or a file of tensors
- `folders`, `tensor_files`: what is found there
- `class_order`: which class of the real data set each label is
- `pixel_format`: how pixels become uint8 with the channels that a student takes
- `checked_images`, `channels`: every image read once, before a student is trained; real ones converted
- `training_sets`: distilled sets and the baselines that a fair table sets them against
"""
