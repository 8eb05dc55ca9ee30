"""Candidates of a class: their numbers -> images, and what a teacher makes of them.

In: an artifact, its diffusion model, a teacher. Out: features, losses, and which candidates the teacher takes
for their class. One batch of images is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.image_sets.generated_images import reconstruct
from d3hr_datasets.image_sets.judge import Judge
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.samplers import draw_candidates
from d3hr_datasets.sources.matched_images import MatchedImages

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

MAX_REAL = 1000  # real images of a class that stand for all of them


@dataclass(frozen=True)
class Judged:
    """What a teacher makes of images of a class.

    Args:
        features: (N, D) before the classifier.
        losses: (N,) cross-entropy of their class.
        recognized: (N,) bool, whether the teacher takes each for its class.
    """

    features: torch.Tensor
    losses: torch.Tensor
    recognized: torch.Tensor


@dataclass(frozen=True)
class CandidateMaker:
    """What makes the candidates of each class.

    Args:
        artifact: The artifact.
        model: Its diffusion model.
        decode: How latents become images.
        seed: Of all candidates.
        mode_spread: Factor on the standard deviation within modes; None where there are none.
        batch_size: Images in the model at a time.
    """

    artifact: Artifact
    model: LatentDiffusion
    decode: DecodeConfig
    seed: int
    mode_spread: float | None
    batch_size: int

    @neutral()
    def judge(
        self, judge: Judge, class_label: int, number: int, done: Callable[[int], object] = lambda _: None
    ) -> Judged:
        """Make the first `number` candidates of a class, and return what a teacher makes of them.

        Args:
            judge: The teacher.
            class_label: The class.
            number: How many.
            done: Called with the images of each batch that is finished.
        """
        features, logits = [], []
        for start in range(0, number, self.batch_size):
            numbers = range(start, min(start + self.batch_size, number))
            pixels = self._pixels(class_label, numbers)
            features.append(judge.features(pixels))
            logits.append(judge.logits(pixels))
            done(len(numbers))
        return _judged(features, logits, class_label)

    def _pixels(self, class_label: int, numbers: Sequence[int]) -> list[torch.Tensor]:
        """Return the images (C, S, S) uint8 of candidates, as a data set has them."""
        latents = draw_candidates(
            self.artifact, class_label, numbers, self.seed, self.mode_spread, self.decode
        )
        labels = torch.full((len(latents),), class_label)
        clean = self.model.denoise(latents, labels, self.decode, self.batch_size)
        images = to_pil(self.model.decode(clean, self.batch_size), self.artifact.info.padding)
        return [pil_to_tensor(image) for image in images]


@neutral()
def judge_real(maker: CandidateMaker, images: MatchedImages, judge: Judge, class_label: int) -> Judged:
    """Return what a teacher makes of real images of a class, at most `MAX_REAL` random ones.

    They are encoded and decoded by the VAE first, as candidates come out of its decoder: so features tell
    what is on an image, and not which of the two it is.

    Raises:
        UnreadableImageError: An image cannot be read.
    """
    info, numbers = maker.artifact.info, images.chosen(class_label, MAX_REAL)
    features, logits = [], []
    for start in range(0, len(numbers), maker.batch_size):
        batch = numbers[start : start + maker.batch_size]
        pixels = images.pixels(batch, info.image_size, info.image_mode, info.inversion.resizing)
        pixels = reconstruct(maker.model, pixels)
        features.append(judge.features(pixels))
        logits.append(judge.logits(pixels))
    return _judged(features, logits, class_label)


def _judged(features: list[torch.Tensor], logits: list[torch.Tensor], class_label: int) -> Judged:
    found = torch.cat(logits)
    labels = torch.full((len(found),), class_label)
    losses = F.cross_entropy(found, labels, reduction="none")
    return Judged(torch.cat(features), losses, found.argmax(dim=1) == class_label)
