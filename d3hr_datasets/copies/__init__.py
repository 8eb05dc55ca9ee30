"""Near copies: images, and those that a model was trained on -> whether they are nearer than others would be.

- `neighbours`: exact nearest neighbours, in blocks
- `nearness`: how near each image is to the training images, in pixels and in features
- `exceedances`: how many images would be nearer than held-out ones by chance
- `comparisons`: both together, as numbers
- `findings`: what they say, in words
"""
