"""Measure what few steps cost: images of every solver and spacing against the solution that they approach.

    python -m recipes.evaluate.solvers

Latents of the artifact's own sampler are denoised by each solver in a few steps, and compared with the same
latents denoised by DDIM on a grid of 500 steps, under the same guidance: with the artifact's scale, with
none, and with its scale in an interval of times only. Says nothing of what students learn of the images.
Writes `hub/results/solvers.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from typing import Any, get_args

import numpy as np
import torch
from tqdm import tqdm

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig
from d3hr_datasets.config.decode_steps import Solver, Spacing
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_pil
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results

SAME_GREY = 1  # grey levels by which rounding alone may change a pixel
MANY_STEPS = 48  # of the best solver: how far the reference itself is from the solution


def guidances(decode: DecodeConfig, interval_starts: list[float]) -> dict[str, dict[str, Any]]:
    """Return the ways to guide by name, as fields of `DecodeConfig`."""
    scale, top = decode.guidance_scale, decode.timestep
    found: dict[str, dict[str, Any]] = {
        f"guidance {scale:g}": {"guidance_scale": scale},
        "no guidance": {"guidance_scale": 1.0},
    }
    for low in interval_starts:
        found[f"guidance {scale:g} from {low:g} to {top:g}"] = {
            "guidance_scale": scale,
            "guidance_interval": (low, top),
        }
    return found


def on_grid(steps: int) -> dict[str, Any]:
    """Return DDIM over a grid, as fields of `DecodeConfig`."""
    return {"num_inference_steps": steps, "num_steps": None, "solver": "ddim", "spacing": "uniform"}


def ways(grid: int, steps: list[int], in_interval: bool) -> dict[str, dict[str, Any]]:
    """Return the ways to step by name, as fields of `DecodeConfig`: fewer where guidance has an interval."""
    found = {f"ddim, grid of {grid}": on_grid(grid)}
    for solver, spacing, number in itertools.product(get_args(Solver), get_args(Spacing), steps):
        if not in_interval or (solver, spacing) == ("dpm++2m", "uniform"):
            found[f"{solver}, {spacing}, {number} steps"] = {
                "num_inference_steps": None,
                "num_steps": number,
                "solver": solver,
                "spacing": spacing,
            }
    if not in_interval:
        found[f"unipc, uniform, {MANY_STEPS} steps"] = {
            "num_inference_steps": None,
            "num_steps": MANY_STEPS,
            "solver": "unipc",
        }
    return found


def pixels(model: LatentDiffusion, latents: torch.Tensor, padding: int) -> np.ndarray[Any, Any]:
    """Return images as they are saved, in grey levels."""
    images = [np.asarray(image) for image in to_pil(model.decode(latents), padding)]
    return np.stack(images).astype(int)


def compare(
    found: torch.Tensor,
    reference: torch.Tensor,
    images: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
) -> dict[str, float]:
    """Return the errors of latents (N, C, H, W) and of their images."""
    differences = np.abs(images - expected)
    return {
        "latents_relative_rms": float((found - reference).norm() / reference.norm()),
        "mean_absolute_grey_levels": float(differences.mean()),
        "differing_percent": float(100 * (differences > SAME_GREY).mean()),
    }


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--ipc", type=int, default=50, help="images per class of the set that is drawn")
    parser.add_argument("--each", type=int, default=4, help="of these, as many are denoised")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 3, 4, 6, 8, 11])
    parser.add_argument("--grid", type=int, default=25, help="steps of a whole grid, for DDIM")
    parser.add_argument("--interval-starts", type=float, nargs="*", default=[100, 200])
    parser.add_argument("--reference-steps", type=int, default=500, help="of the whole grid")
    parser.add_argument("--output", default="hub/results/solvers.json")
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    dataset = D3HRDataset(Artifact.load(arguments.artifact), ipc=arguments.ipc)
    model, decode, padding = dataset.model(), dataset.decode, dataset.artifact.info.padding
    places = torch.linspace(0, arguments.ipc - 1, arguments.each).long()  # of all modes' images, some
    groups = [dataset.sample_latents(label)[places] for label in range(len(dataset.classes))]
    latents, labels = torch.cat(groups), dataset.class_labels.repeat_interleave(arguments.each)
    results: dict[str, dict[str, Any]] = {}
    for guidance, guided in guidances(decode, arguments.interval_starts).items():
        base = dataclasses.replace(decode, **guided)
        fine = dataclasses.replace(base, **on_grid(arguments.reference_steps))
        reference = model.denoise(latents, labels, fine)
        expected, results[guidance] = pixels(model, reference, padding), {}
        chosen = ways(arguments.grid, arguments.steps, "guidance_interval" in guided)
        for name, way in tqdm(chosen.items(), desc=guidance):
            config = dataclasses.replace(base, **way)
            found = model.denoise(latents, labels, config)
            results[guidance][name] = {
                "forward_passes": model.forward_passes(config),
                **compare(found, reference, pixels(model, found, padding), expected),
            }
            print(guidance, name, results[guidance][name], flush=True)
    settings = {**vars(arguments), "seed": dataset.seed, "decode": decode.to_dict()}
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
