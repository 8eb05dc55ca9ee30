"""The measurements of a report: inverted latents, samplers, bytes -> numbers.

Pure functions over the latents of one class, so that memory does not grow with the number of classes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.artifact.d3hr_json import ADAPTER, CURATION, EMBEDDINGS, STATISTICS
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sampling.group_loss import group_score, skewness
from d3hr_datasets.sampling.samplers import draw_latents

MAX_CORRELATED = 512  # elements whose correlations are computed: a matrix of them all may not fit
SEARCH_CANDIDATES = 1000
TERMS = ("mean", "std", "skewness")


@neutral()
def normality(latents: torch.Tensor) -> dict[str, float]:
    """Return how far the latents of one class are from independent Gaussian elements.

    Elements that do not vary are left out. A finite sample of Gaussian noise is above 0 in all three, so
    they are read beside those of `torch.randn` of the same shape.

    Args:
        latents: (N, *latent), N at least 2.

    Returns:
        `skewness` and `excess_kurtosis`: their mean absolute values over elements, from biased moments.
        `correlation`: the mean absolute correlation between elements, of at most `MAX_CORRELATED`.
    """
    values = latents.flatten(1).double()
    values = values[:, values.std(dim=0) > 0]
    deviations = values - values.mean(dim=0)
    second = deviations.square().mean(dim=0)
    kurtosis = deviations.pow(4).mean(dim=0) / second.square() - 3
    step = -(-values.shape[1] // MAX_CORRELATED)
    matrix = torch.atleast_2d(torch.corrcoef(values[:, ::step].T))
    between = matrix[~torch.eye(len(matrix), dtype=torch.bool)]
    return {
        "skewness": float(skewness(values).abs().mean()),
        "excess_kurtosis": float(kurtosis.abs().mean()),
        "correlation": float(between.abs().mean()) if len(between) else 0.0,
    }


@neutral()
def standardised_quantiles(latents: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Return quantiles of all elements of one class, each standardised over the images.

    Args:
        latents: (N, *latent), N at least 2.
        probabilities: (Q,) in 0..1.

    Returns:
        (Q,) float64; those of a normal law are `torch.special.ndtri(probabilities)`.
    """
    values = latents.flatten(1).double()
    values = values[:, values.std(dim=0) > 0]
    ordered = ((values - values.mean(dim=0)) / values.std(dim=0)).flatten().sort().values
    # Not torch.quantile, which takes 16 million values at most.
    position = (probabilities * (len(ordered) - 1)).round().long()
    return ordered[position]


@neutral()
def distance_to_stored(latents: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> float:
    """Return how far the mean of latents (N, *latent) is from a stored one, in standard errors.

    The root mean square over elements: about 1 where the images are a random part of those, or of the same
    kind as those, behind the artifact; far above where they, the model or the classes are others.
    """
    error = (latents.double().mean(dim=0) - mean) / (variance.double() / len(latents)).sqrt()
    return float(error[variance > 0].square().mean().sqrt())


@neutral()
def sampler_scores(dataset: D3HRDataset) -> dict[str, dict[str, float]]:
    """Return the paper's loss of groups by every sampler, averaged over the classes of a data set.

    Groups are those of the data set's time. Curated ones are those of the time that they were chosen at,
    compared with the classes at that time, unless the data set is curated and says another.

    Source: D3HR, eq. 11-13 (`group_score`).

    Returns:
        For each sampler, `loss` (with the paper's weights) and its unweighted terms: distance of `mean` and
        of `std` to those of the class, and length of the `skewness`. The last two are 0 for groups of one.
    """
    samplers = {
        "independent": GroupSamplingConfig("search", num_candidates=1),
        f"search, best of {SEARCH_CANDIDATES:,}": GroupSamplingConfig(
            "search", num_candidates=SEARCH_CANDIDATES
        ),
        "moment_matched": GroupSamplingConfig("moment_matched"),
    }
    if dataset.artifact.info.num_modes > 1:
        samplers["modes"] = GroupSamplingConfig("modes")
    rest = {name: (config, dataset.decode) for name, config in samplers.items()}
    scores: dict[str, dict[str, float]] = {}
    for name, (config, decode) in {**rest, **_curated(dataset)}.items():
        sampling = dataclasses.replace(config, seed=dataset.seed)
        rows = [_score(dataset, label, sampling, decode) for label in dataset.class_labels.tolist()]
        scores[name] = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    return scores


def _curated(dataset: D3HRDataset) -> dict[str, tuple[GroupSamplingConfig, DecodeConfig]]:
    """Return how curated groups are made, where the artifact has an order of so many images; else nothing."""
    curation = dataset.artifact.info.curation
    if curation is None or dataset.ipc > curation.num_kept:
        return {}
    decode = dataset.decode if dataset.sampling.method == "curated" else curation.decode
    is_same = decode.timestep == dataset.decode.timestep
    name = "curated" if is_same else f"curated, at t = {decode.timestep}"
    return {name: (GroupSamplingConfig("curated"), decode)}


def _score(
    dataset: D3HRDataset, class_label: int, sampling: GroupSamplingConfig, decode: DecodeConfig
) -> dict[str, float]:
    group = draw_latents(dataset.artifact, class_label, dataset.ipc, sampling, decode, nested=False).double()
    gaussian = dataset.artifact.gaussians(decode.timestep, class_label)
    moments = gaussian.mean[0].double(), gaussian.variance[0].double()
    row = {"loss": float(group_score(group, *moments, sampling))}
    for term in TERMS:
        weights: dict[str, Any] = {f"{other}_weight": float(other == term) for other in TERMS}
        row[term] = float(group_score(group, *moments, dataclasses.replace(sampling, **weights)))
    return row


def sizes(dataset: D3HRDataset) -> dict[str, int]:
    """Return bytes: what the artifact needs, what its images take, and what the source images did.

    `model` is 0 where the artifact only refers to one. `adapter`, `embeddings` and the `order` of
    curated images are there where it has some. `source_pixels` are uncompressed.
    """
    artifact, info = dataset.artifact, dataset.artifact.info
    files = {name: (artifact.folder / name).stat().st_size for name in artifact.sha256}
    inside = [size for name, size in files.items() if name.startswith(f"{info.model.path}/")]
    adapter = sum(size for name, size in files.items() if name.startswith(f"{ADAPTER}/"))
    added = {"adapter": adapter, "embeddings": files.get(EMBEDDINGS, 0), "order": files.get(CURATION, 0)}
    generated = [Path(path).stat().st_size for path, _ in dataset.samples]
    pixels = info.image_size**2 * (1 if info.image_mode == "L" else 3)
    return {
        "statistics": files[STATISTICS],
        "model": sum(inside) if info.model.path else 0,
        **{name: size for name, size in added.items() if size},
        "generated_png": sum(generated),
        "source_pixels": pixels * sum(info.counts[label] for label in dataset.class_labels.tolist()),
    }
