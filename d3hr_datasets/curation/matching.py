"""Distribution matching: means of modes -> how far groups of them are from real images, with gradients.

In: an artifact's modes, its diffusion model, real images. Out: a loss for a class, a size of a group and a
draw, which is a function of how far the means of the modes are shifted.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from d3hr_datasets.artifact.gaussians import ClassModes
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.curation.learning_settings import Generation
from d3hr_datasets.errors import ModelFormatError
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.mode_sampling import mode_shares, sample_modes
from d3hr_datasets.students.convnet import ConvNet
from d3hr_datasets.students.views import dsa_augment

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

SMALLEST_MAP = (
    4  # pixels on a side that the last feature maps have at least, where three halvings leave so many
)
LEAST_DEPTH = 3


def network_depth(image_size: int) -> int:
    """Return the blocks of a ConvNet for images of a size: 3 up to 63 pixels, 4 up to 127, and so on.

    Source: DM (Zhao & Bilen, 2023): a block more for images twice as large.
    """
    return max(LEAST_DEPTH, int(math.log2(max(image_size, SMALLEST_MAP) / SMALLEST_MAP)))


@dataclass(frozen=True)
class Draw:
    """What is drawn for one look at all classes: a network, and a seed of everything else.

    Args:
        network: Images (B, C, S, S) to features (B, D).
        seed: Of groups, of the choice of real images, and of augmentations; the class is mixed into it.
    """

    network: nn.Module
    seed: int


@dataclass(frozen=True)
class Matcher:
    """What compares groups with real images.

    Args:
        model: The diffusion model of the artifact.
        padding: Of its images, in pixels.
        modes: As built, by timestep.
        generation: How groups are sampled and decoded, by their size.
        real: Real images of each class, uint8 (N, C, S, S).
        real_batch: How many of them one draw looks at.
        width: Channels of the networks.
        batch_size: Images in the diffusion model at a time.
    """

    model: LatentDiffusion
    padding: int
    modes: Mapping[float, ClassModes]
    generation: Mapping[int, Generation]
    real: Sequence[torch.Tensor]
    real_batch: int
    width: int
    batch_size: int

    @neutral()
    def draw(self, seed: int) -> Draw:
        """Return a network of random weights, and the seed of what is drawn with it."""
        channels, size = self.real[0].shape[1:3]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "network"))
            network = ConvNet(0, channels, size, network_depth(size), self.width)
        return Draw(network.to(self.model.device).requires_grad_(False), seed)

    @neutral(grad=None)
    def moved(self, timestep: float, class_label: int, shift: torch.Tensor) -> torch.Tensor:
        """Return means (M, *latent) that are shifted (M, *latent) standard deviations within the mode."""
        modes = self.modes[timestep]
        return modes.mean[class_label] + modes.variance[class_label].sqrt() * shift

    @neutral(grad=True, full_float32=True)
    def loss(
        self, shifts: Mapping[float, torch.Tensor], class_label: int, ipc: int, draw: Draw
    ) -> torch.Tensor:
        """Return the squared distance between mean features of a group and of real images of a class.

        Gradients go through the network, DSA's augmentation, the VAE's decoder and every step of denoising,
        guidance included, to the latents of the group; none is cut or estimated. From the latents to the
        means they go by `mode_shares`: which modes are joined is taken as given, and so is the variance.

        Source: Zhao & Bilen, "Dataset Condensation with Distribution Matching" (WACV 2023), eq. 4, with
        groups of latents of a diffusion model in place of pixels.

        Args:
            shifts: (K, M, *latent) by timestep, in standard deviations within the mode.
            class_label: The class.
            ipc: Size of the group; one of `generation`.
            draw: Network and seed. One augmentation is drawn for real images and group alike.

        Raises:
            ModelFormatError: The model makes images that are not finite.
        """
        sampling, decode = self.generation[ipc]
        sampling = dataclasses.replace(sampling, seed=derive_seed(draw.seed, "group"))
        modes, shift = self.modes[decode.timestep], shifts[decode.timestep][class_label]
        means = self.moved(decode.timestep, class_label, shift)
        now = ClassModes(
            means.detach()[None],
            modes.variance[class_label : class_label + 1],
            modes.count[class_label : class_label + 1],
        )
        latents = sample_modes(now, ipc, class_label, sampling)
        # Adds nothing but the derivative: the group is that of the sampler, to the last bit.
        latents = latents + torch.tensordot(mode_shares(now, ipc), means - means.detach(), dims=1)
        made = self._features(self._images(latents, class_label, decode), draw, class_label)
        real = self._features(self._some_real(class_label, draw), draw, class_label)
        loss = (real.mean(dim=0) - made.mean(dim=0)).square().sum()
        if not loss.isfinite():
            raise ModelFormatError(
                f"images of class label {class_label} are not finite; use a model in float32, or a smaller "
                "max_shift"
            )
        return loss

    def _images(self, latents: torch.Tensor, class_label: int, decode: DecodeConfig) -> torch.Tensor:
        """Return the images (B, C, S, S) of latents, in [0, 1], without their frame.

        What does not fit the model at once is computed again for its gradients, a batch at a time, so that
        memory does not grow with the group.
        """

        @neutral(grad=True, full_float32=True)
        def make(chunk: torch.Tensor) -> torch.Tensor:
            labels = torch.full((len(chunk),), class_label)
            clean = self.model.denoise(chunk, labels, decode, len(chunk))
            return self.model.decode(clean, len(chunk))

        chunks = latents.split(self.batch_size)
        if len(chunks) == 1:
            images = make(latents)
        else:
            images = torch.cat(
                [checkpoint(make, chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
            )
        end = images.shape[-1] - self.padding
        return (images[..., self.padding : end, self.padding : end] + 1) / 2

    @cached_property
    def _normalization(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (C, 1, 1) of the real images, in [0, 1]."""
        number, channels = sum(len(images) for images in self.real), self.real[0].shape[1]
        moments = torch.zeros(2, channels, dtype=torch.float64)
        for images in self.real:
            pixels = images.double() / 255
            moments += torch.stack([pixels, pixels.square()]).mean(dim=(3, 4)).sum(dim=1) / number
        variance = (moments[1] - moments[0].square()).clamp(min=1 / 255**2)  # of images of one colour, too
        return moments[0].view(-1, 1, 1).float(), variance.sqrt().view(-1, 1, 1).float()

    def _some_real(self, class_label: int, draw: Draw) -> torch.Tensor:
        """Return random real images of a class, float in [0, 1]."""
        images = self.real[class_label]
        generator = torch.Generator().manual_seed(derive_seed(draw.seed, class_label, "real"))
        chosen = torch.randperm(len(images), generator=generator)[: self.real_batch]
        return images[chosen].to(self.model.device).float() / 255

    def _features(self, images: torch.Tensor, draw: Draw, class_label: int) -> torch.Tensor:
        """Return features (B, D) of images, normalised as the real ones, after the draw's augmentation."""
        mean, std = (values.to(images) for values in self._normalization)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(draw.seed, class_label, "augmentation"))
            augmented = dsa_augment((images - mean) / std, shared=True)
        features: torch.Tensor = draw.network(augmented)
        return features
