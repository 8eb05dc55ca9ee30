"""Candidates of a class: their numbers -> images, and what a teacher makes of them.

In: an artifact, its diffusion model, a teacher. Out: features, losses, and which candidates the teacher takes
for their class. One batch of images is in memory at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.image_sets.pixel_format import to_channels
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.samplers import draw_candidates
from d3hr_datasets.sources.matched_images import MatchedImages
from d3hr_datasets.sources.resizing import read_pixels

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
    from d3hr_datasets.students.teachers import Teacher

MAX_REAL = 1000  # real images of a class that stand for all of them
LOCAL = "local-dir:"


@dataclass(frozen=True)
class Judged:
    """What a teacher makes of the candidates of a class.

    Args:
        features: (N, D) before the classifier.
        losses: (N,) cross-entropy of their class.
        recognized: (N,) bool, whether the teacher takes each for its class.
    """

    features: torch.Tensor
    losses: torch.Tensor
    recognized: torch.Tensor


class Judge:
    """A teacher that looks at images as they come out of an artifact.

    Args:
        teacher: Its logits are in the order of the artifact's classes. Images are resized to the side that it
            was trained on, where its config says so and it was not told another.
        device: Where it runs.
    """

    @neutral()
    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        cfg = teacher.model.pretrained_cfg
        size = cfg.get("input_size") or (None, None, None)  # type: ignore[union-attr,operator]
        self.teacher = teacher.to(device)
        self._device = device
        self._size: int | None = teacher.image_size or size[-1]
        kernels = [weights for weights in teacher.model.parameters() if weights.dim() == 4]
        self._channels = int(kernels[0].shape[1]) if kernels else len(teacher.mean)

    @property
    def name(self) -> str:
        """What the teacher is, without folders of this machine."""
        name = self.teacher.name
        return f"{LOCAL}{PurePath(name).name}" if name.startswith(LOCAL) else name

    @neutral()
    def sha256(self) -> str:
        """Return the checksum of the weights, with their names and shapes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.teacher.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @neutral(full_float32=True)
    def features(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the features (N, D) of images (C, S, S) uint8."""
        return self.teacher.features(self._views(pixels)).float().cpu()

    @neutral(full_float32=True)
    def logits(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the logits (N, K) of images (C, S, S) uint8."""
        logits: torch.Tensor = self.teacher(self._views(pixels))
        return logits.float().cpu()

    def _views(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        images = torch.stack([to_channels(image, self._channels, "an image") for image in pixels])
        views = images.to(self._device).float() / 255
        if self._size is not None and views.shape[-1] != self._size:
            views = F.interpolate(views, size=self._size, mode="bilinear", antialias=True).clamp(0, 1)
        return views


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
        found = torch.cat(logits)
        labels = torch.full((number,), class_label)
        losses = F.cross_entropy(found, labels, reduction="none")
        return Judged(torch.cat(features), losses, found.argmax(dim=1) == class_label)

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
def real_features(
    images: MatchedImages, info: ArtifactInfo, judge: Judge, class_label: int, batch_size: int
) -> torch.Tensor:
    """Return the features (M, D) of real images of a class, at most `MAX_REAL` random ones.

    Raises:
        ConfigError: There are none.
        UnreadableImageError: An image cannot be read.
    """
    records = images.records(class_label, MAX_REAL)
    parts = []
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        parts.append(judge.features([read_pixels(one, info.image_size, info.image_mode)[0] for one in batch]))
    return torch.cat(parts)
