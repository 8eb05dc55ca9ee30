"""Draw groups in two further ways, to compare with those of the library: folders of images for students.

    python -m recipes.build.group_variants

`transport`: the centres of a group are the points that are nearest to all modes by optimal transport, each
with the same mass, the modes with their masses; noise is matched as in groups of modes. `repulsion`: a group
of modes whose noise is drawn so that its latents keep away from each other. The table
`recipes/configs/tables/group-variants.yaml` trains students on them.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linprog

from d3hr_datasets import D3HRDataset, GroupSamplingConfig
from d3hr_datasets.artifact.gaussians import ClassModes
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.sampling.gaussian_sampling import moment_matched_noise
from d3hr_datasets.sampling.mode_sampling import sample_modes
from recipes.common.image_groups import save_group
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program

ROUNDS = 20  # of transport, at most
CANDIDATES = 32  # noises that each latent is chosen of


def transport_centres(modes: ClassModes, ipc: int) -> torch.Tensor:
    """Return `ipc` points of equal mass, a free-support barycentre of the modes of one class.

    Source: Cuturi and Doucet (2014), with exact plans. It starts from the centres of a group of modes.

    Args:
        modes: Of one class (K = 1).
        ipc: How many points.

    Returns:
        (ipc, *latent) float64.
    """
    shape = modes.mean.shape[2:]
    means = modes.mean[0].flatten(1).double().numpy()
    masses = modes.count[0].double().numpy() / float(modes.count[0].sum())
    start = sample_modes(modes, ipc, 0, GroupSamplingConfig("modes", mode_spread=0.0))
    centres = start.flatten(1).double().numpy()
    for _ in range(ROUNDS):
        moved = ipc * _plan(centres, means, masses) @ means
        if np.allclose(moved, centres, atol=1e-9):
            break
        centres = moved
    return torch.from_numpy(centres).view(ipc, *shape)


def _plan(centres: np.ndarray, means: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return the plan (N, M) that moves N equal masses to the masses of M means at the least squared way."""
    number, count = len(centres), len(means)
    cost = np.square(centres[:, None] - means[None]).sum(axis=2)
    rows = np.kron(np.eye(number), np.ones(count))
    columns = np.kron(np.ones(number), np.eye(count))
    totals = np.concatenate([np.full(number, 1 / number), masses])
    found = linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=totals, method="highs")
    if not found.success:
        raise RuntimeError(f"no plan was found: {found.message}")
    plan: np.ndarray = found.x.reshape(number, count)
    return plan


def apart_noise(shape: tuple[int, ...], ipc: int, label: int, seed: int) -> torch.Tensor:
    """Return noise (ipc, *shape) whose rows keep away from each other, of mean 0 and deviation 1 as a group.

    Each is the farthest of some draws from the nearest of those before it (Mitchell's best candidate).
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "apart", label))
    chosen = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    while len(chosen) < ipc:
        drawn = torch.randn(CANDIDATES, *shape, generator=generator, dtype=torch.float64)
        nearest = torch.cdist(drawn.flatten(1), chosen.flatten(1)).min(dim=1).values
        chosen = torch.cat([chosen, drawn[nearest.argmax()][None]])
    if ipc == 1:
        return chosen
    centred = chosen - chosen.mean(dim=0)
    return centred / centred.std(dim=0)


def transport(modes: ClassModes, variance: torch.Tensor, ipc: int, label: int, seed: int) -> torch.Tensor:
    """Return latents (ipc, *latent) about the centres of transport; `variance` is that of the class."""
    centres = transport_centres(modes, ipc)
    noise = moment_matched_noise(tuple(variance.shape), ipc, label, seed)
    return (centres + _rest(variance, centres).sqrt() * noise).float()


def repulsion(modes: ClassModes, variance: torch.Tensor, ipc: int, label: int, seed: int) -> torch.Tensor:
    """Return latents (ipc, *latent) about the centres of modes, with noise that keeps them apart."""
    centres = sample_modes(modes, ipc, label, GroupSamplingConfig("modes", mode_spread=0.0)).double()
    noise = apart_noise(tuple(variance.shape), ipc, label, seed)
    return (centres + _rest(variance, centres).sqrt() * noise).float()


def _rest(variance: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return what is left of a class's variance when that of the centres is taken off."""
    return (variance.double() - centres.var(dim=0, correction=0)).clamp(min=0)


Draw = Callable[[ClassModes, torch.Tensor, int, int, int], torch.Tensor]
WAYS: dict[str, Draw] = {"transport": transport, "repulsion": repulsion}


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/groups"))
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    for ipc in arguments.ipc:
        dataset = D3HRDataset(arguments.artifact, ipc=ipc)
        for (way, draw), seed in itertools.product(WAYS.items(), range(arguments.seeds)):
            root = arguments.output / f"{way}-ipc{ipc}-seed{seed}"
            save_group(root, dataset, partial(_images, dataset, draw, seed))


def _images(dataset: D3HRDataset, draw: Draw, seed: int, label: int) -> list[Image.Image]:
    artifact, model, time = dataset.artifact, dataset.model(), dataset.decode.timestep
    variance = artifact.gaussians(time).variance[label]
    latents = draw(artifact.modes(time, label), variance, dataset.ipc, label, seed)
    images = model.decode(model.denoise(latents, torch.full((dataset.ipc,), label), dataset.decode))
    return to_pil(images, artifact.info.padding)


if __name__ == "__main__":
    main()
