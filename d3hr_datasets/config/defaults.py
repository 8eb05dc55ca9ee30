"""Defaults that functions and commands share. Nothing of them changes what is made, but for rounding."""

from __future__ import annotations

BATCH_SIZE = 64  # images or latents in the model at a time, while images are made
BATCH_CLASSES = 64  # in such a batch at most, each of which holds a lock
BUILD_BATCH_SIZE = 256  # images in the model at a time, while they are inverted
CHUNK_SIZE = 2048  # images in a chunk of a build, the most that a killed process loses
NUM_READERS = 4  # threads that read images
