"""Defaults that functions and commands share."""

from __future__ import annotations

# Nothing of these changes what is made, but for rounding.
BATCH_SIZE = 64  # images or latents in the model at a time, while images are made
BATCH_CLASSES = 64  # in such a batch at most, each of which holds a lock
BUILD_BATCH_SIZE = 256  # images in the model at a time, while they are inverted
CHUNK_SIZE = 2048  # images in a chunk of a build, the most that a killed process loses
NUM_READERS = 4  # threads that read images

# Steps of inversion by fixed points, spaced "cubic", where a build is told nothing else. On the embedded
# model they leave less error in the statistics than the 21 steps of DDIM on a grid of 50; see
# `hub/results/inversion_steps.json`.
INVERSION_STEPS = 6

# Steps of decoding by DPM-Solver++ (2M), spaced "quadratic", where a build is told nothing else: eight
# forward passes under guidance instead of 62. Students of the embedded model do not tell them from 22; see
# `hub/results/tables/selection-generation.json`.
DECODE_STEPS = 4
