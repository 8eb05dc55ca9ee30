"""What a report measures on real images: images -> inverted latents -> normality, and points to draw."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.transforms.v2.functional import pil_to_tensor
from tqdm import tqdm

from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.diffusion.grid_times import grid_times
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.report.measures import distance_to_stored, normality, standardised_quantiles
from d3hr_datasets.sources.matched_images import MatchedImages

TIMESTEPS = 8  # over which normality is shown, besides those of the artifact
DRAWN_CLASSES = 10  # in the figure of points; more could not be told apart
SHOWN_IMAGES = 10  # of each class


@dataclass(frozen=True)
class InvertedImages:
    """Measures of inverted real images.

    Args:
        num_images: All that were inverted.
        normality: By timestep, measures averaged over the classes.
        noise: The same of Gaussian noise, as many samples as each class has images.
        probabilities: (Q,) of the quantiles.
        noise_quantiles: (Q,), of the same noise.
        quantiles: By timestep, VAE space and the one that is decoded from, (classes, Q).
        distance: Of the images' means to the stored ones, in standard errors, averaged over the classes.
        spaces: By timestep likewise, latents of the first classes' images and sampled groups.
        labels: Label of each of these images.
        group_labels: Label of each latent of these groups.
        shown: Some images of each class, (N, C, S, S) uint8.
    """

    num_images: int
    normality: dict[float, dict[str, float]]
    noise: dict[str, float]
    probabilities: torch.Tensor
    noise_quantiles: torch.Tensor
    quantiles: dict[float, torch.Tensor]
    distance: float
    spaces: dict[float, tuple[torch.Tensor, torch.Tensor]]
    labels: torch.Tensor
    group_labels: torch.Tensor
    shown: list[torch.Tensor]


@neutral()
def measure_inversion(
    dataset: D3HRDataset, images: MatchedImages, images_per_class: int, progress: bool
) -> InvertedImages:
    """Invert some real images of each class as the artifact's were, and measure their latents.

    One class is in memory at a time, but for the latents that are drawn.

    Raises:
        ConfigError: A class has fewer than two images, or all its images are the same.
        UnreadableImageError: An image cannot be read.
    """
    info, decode = dataset.artifact.info, dataset.decode
    drawn = sorted({CLEAN, decode.timestep})
    rows: list[dict[float, dict[str, float]]] = []
    quantiles: dict[float, list[torch.Tensor]] = {timestep: [] for timestep in drawn}
    points: dict[float, list[torch.Tensor]] = {timestep: [] for timestep in drawn}
    groups: dict[float, list[torch.Tensor]] = {timestep: [] for timestep in drawn}
    labels: list[int] = []
    probabilities = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    distances, shown, counts = [], [], []
    for label, class_label in enumerate(
        tqdm(dataset.class_labels.tolist(), "inverting", disable=not progress)
    ):
        pixels = images.read(class_label, images_per_class, info.image_size, info.image_mode)
        latents = _invert(dataset, pixels, class_label)
        counts.append(len(pixels))
        shown.append(pixels[:SHOWN_IMAGES])
        rows.append({timestep: normality(found) for timestep, found in latents.items()})
        for timestep in drawn:
            quantiles[timestep].append(standardised_quantiles(latents[timestep], probabilities))
        stored = dataset.artifact.gaussians(decode.timestep, class_label)
        distances.append(distance_to_stored(latents[decode.timestep], stored.mean[0], stored.variance[0]))
        if label < DRAWN_CLASSES:
            labels += [label] * len(pixels)
            for timestep in drawn:
                points[timestep].append(latents[timestep])
                groups[timestep].append(_group(dataset, label, timestep))
    noise, noise_quantiles = measure_noise(counts, info.latent_shape, probabilities)
    num_drawn = min(DRAWN_CLASSES, len(rows))
    return InvertedImages(
        num_images=sum(counts),
        normality={
            timestep: {
                name: sum(row[timestep][name] for row in rows) / len(rows) for name in rows[0][timestep]
            }
            for timestep in rows[0]
        },
        noise=noise,
        probabilities=probabilities,
        noise_quantiles=noise_quantiles,
        quantiles={timestep: torch.stack(lines) for timestep, lines in quantiles.items()},
        distance=sum(distances) / len(distances),
        spaces={t: (torch.cat(points[t]), torch.cat(groups[t])) for t in drawn},
        labels=torch.tensor(labels),
        group_labels=torch.arange(num_drawn).repeat_interleave(dataset.ipc),
        shown=shown,
    )


@neutral()
def measure_noise(
    counts: Sequence[int], latent_shape: Sequence[int], probabilities: torch.Tensor
) -> tuple[dict[str, float], torch.Tensor]:
    """Measure Gaussian noise in the place of latents, for few images differ from many.

    Args:
        counts: Images of each class, at least two.
        latent_shape: (C, H, W).
        probabilities: (Q,) of the quantiles.

    Returns:
        What `normality` and `standardised_quantiles` find, averaged over the classes.
    """
    averages: dict[str, float] = {}
    quantiles = torch.zeros_like(probabilities)
    for count, classes in Counter(counts).items():
        noise = torch.randn((count, *latent_shape), generator=torch.Generator().manual_seed(0))
        share = classes / len(counts)
        for name, value in normality(noise).items():
            averages[name] = averages.get(name, 0.0) + share * value
        quantiles += share * standardised_quantiles(noise, probabilities)
    return averages, quantiles


def _invert(dataset: D3HRDataset, pixels: torch.Tensor, class_label: int) -> dict[float, torch.Tensor]:
    """Return latents of images of one class, at the artifact's timesteps and some more."""
    info, model = dataset.artifact.info, dataset.model()
    times = grid_times(model.schedule, info.inversion.num_inference_steps, info.inversion.grid)
    chosen = {CLEAN, *info.inversion.timesteps, *times[:: -(-len(times) // TIMESTEPS)]}
    inversion = dataclasses.replace(info.inversion, timesteps=tuple(sorted(chosen)))
    parts: dict[float, list[torch.Tensor]] = {timestep: [] for timestep in inversion.timesteps}
    for first, batch in zip(range(0, len(pixels), BATCH_SIZE), pixels.split(BATCH_SIZE), strict=True):
        generators = None
        if inversion.latent == "sample":
            seeds = [derive_seed(inversion.seed, first + i, "report") for i in range(len(batch))]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        latents = model.encode(to_model_range(batch, info.padding), generators)
        labels = torch.full((len(batch),), class_label)
        for timestep, inverted in model.invert(latents, labels, inversion).items():
            parts[timestep].append(inverted.cpu())
    found = {timestep: torch.cat(part) for timestep, part in parts.items()}
    if any((latents == latents[:1]).all() for latents in found.values()):
        raise ConfigError(
            f"the {len(pixels)} real images of the class {info.classes[class_label]!r} that were inverted "
            "have the same latents, which have no spread to measure; give more images per class "
            "(--images-per-class), or others"
        )
    return found


def _group(dataset: D3HRDataset, label: int, timestep: float) -> torch.Tensor:
    """Return the sampled group of a class: as sampled, or in VAE space as its images are encoded."""
    if timestep == dataset.decode.timestep:
        return dataset.sample_latents(label)
    first = label * dataset.ipc
    images = [dataset[index][0] for index in range(first, first + dataset.ipc)]
    pixels = torch.stack([pil_to_tensor(image) for image in images])
    info, model = dataset.artifact.info, dataset.model()
    return torch.cat([model.encode(to_model_range(p, info.padding)).cpu() for p in pixels.split(BATCH_SIZE)])
