"""The figures of docs/concepts.md: the embedded artifact -> PNG files in docs/images/.

    python -m recipes.tables.concept_figures
    python -m recipes.tables.concept_figures --only timesteps --output FOLDER

No real image is needed: everything is decoded from the statistics that ship with the package.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from d3hr_datasets import Artifact, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.dataset.generation_settings import default_settings
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.sampling.samplers import draw_latents
from recipes.common.program import program

OUTPUT = Path("docs/images")
CLASSES = ("Trouser", "Dress", "Sandal", "Bag", "Ankle boot")
CLASS = "Sandal"  # of the figures that show one class only
MODES = 6  # of each class, in the figure of modes
IPC = 10
METHODS = {  # the ways to sample a group, as the figures call them
    "moment_matched": GroupSamplingConfig("moment_matched"),
    "search": GroupSamplingConfig("search", num_candidates=2000),
    "modes": GroupSamplingConfig("modes"),
}


class Decoder:
    """Inverted latents of the embedded artifact -> pictures.

    Args:
        artifact: The artifact.
        model: Its diffusion model.
    """

    def __init__(self, artifact: Artifact, model: LatentDiffusion) -> None:
        self.artifact, self.model = artifact, model
        self.decode: DecodeConfig = default_settings(artifact.info, IPC)[1]

    @classmethod
    def embedded(cls) -> Decoder:
        """Return the decoder of the artifact that ships with the package."""
        artifact = Artifact.load(embedded_artifact("fashion-mnist"))
        return cls(artifact, load_model(artifact, device="cpu"))

    def images(self, latents: torch.Tensor, class_label: int, decode: DecodeConfig) -> list[Image.Image]:
        """Return pictures of (B, *latent) latents of one class, at the timestep of `decode`."""
        labels = torch.full((len(latents),), class_label)
        clean = self.model.denoise(latents, labels, decode)
        return to_pil(self.model.decode(clean), self.artifact.info.padding)

    def undenoised(self, latents: torch.Tensor) -> list[Image.Image]:
        """Return what the VAE alone makes of (B, *latent) latents, noise and all."""
        return to_pil(self.model.decode(latents), self.artifact.info.padding)

    def label(self, name: str) -> int:
        """Return the class label of a name."""
        return self.artifact.info.classes.index(name)

    def group(self, class_label: int, sampling: GroupSamplingConfig) -> torch.Tensor:
        """Return the group of `IPC` latents of a class, (IPC, *latent)."""
        return draw_latents(self.artifact, class_label, IPC, sampling, self.decode, nested=False)


def draw_modes(decoder: Decoder) -> Figure:
    """Draw for each class what its mean decodes to, and what its largest modes do."""
    rows = {}
    for name in CLASSES:
        label = decoder.label(name)
        mean = decoder.artifact.gaussians(decoder.decode.timestep, label).mean[0]
        modes = decoder.artifact.modes(decoder.decode.timestep, label)
        largest = modes.count[0].argsort(descending=True, stable=True)[:MODES]
        latents = torch.cat([mean[None], modes.mean[0][largest]]).float()
        rows[name] = decoder.images(latents, label, decoder.decode)
    return _pictures(rows, ["mean", *(f"mode {number}" for number in range(1, MODES + 1))])


def draw_timesteps(decoder: Decoder) -> Figure:
    """Draw a latent that was sampled at each stored timestep: as it is, and denoised."""
    label, rows = decoder.label(CLASS), {}
    for timestep in sorted(decoder.artifact.info.inversion.timesteps):
        decode = DecodeConfig(timestep, decoder.decode.num_inference_steps, decoder.decode.guidance_scale)
        latents = draw_latents(decoder.artifact, label, IPC, METHODS["moment_matched"], decode, nested=False)
        shown = latents[: len(CLASSES)]
        rows[f"t = {timestep}, as sampled"] = decoder.undenoised(shown)
        rows[f"t = {timestep}, denoised"] = decoder.images(shown, label, decode)
    return _pictures(rows, [""] * len(CLASSES))


def draw_guidance(decoder: Decoder) -> Figure:
    """Draw the same group under more and more guidance."""
    label, rows = decoder.label(CLASS), {}
    latents = decoder.group(label, METHODS["moment_matched"])
    for scale in (1.0, 3.0, 8.0):
        decode = DecodeConfig(decoder.decode.timestep, decoder.decode.num_inference_steps, scale)
        rows[f"guidance {scale:g}"] = decoder.images(latents, label, decode)
    return _pictures(rows, [""] * IPC)


def draw_groups(decoder: Decoder) -> Figure:
    """Draw the groups that three ways to sample give, of one class."""
    label = decoder.label(CLASS)
    rows = {
        name: decoder.images(decoder.group(label, sampling), label, decoder.decode)
        for name, sampling in METHODS.items()
    }
    return _pictures(rows, [""] * IPC)


def plane_of_modes(decoder: Decoder, label: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean of a class (D,), the plane its modes spread most in (D, 2), and the modes (M, D)."""
    stored = decoder.artifact.modes(decoder.decode.timestep, label)
    modes, weight = stored.mean[0].double().flatten(1), stored.count[0].double().sqrt()[:, None]
    mean = decoder.artifact.gaussians(decoder.decode.timestep, label).mean[0].double().flatten()
    return mean, torch.linalg.svd(weight * (modes - mean), full_matrices=False).Vh[:2].T, modes


def draw_spread(decoder: Decoder) -> Figure:
    """Draw groups around the mean of a class, in the plane in which its modes spread most."""
    label = decoder.label(CLASS)
    mean, plane, modes = plane_of_modes(decoder, label)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(METHODS), sharex=True, sharey=True)
    of_modes = ((modes - mean) @ plane).T.tolist()
    for axes, (name, sampling) in zip(panels, METHODS.items(), strict=True):
        group = ((decoder.group(label, sampling).double().flatten(1) - mean) @ plane).T.tolist()
        axes.scatter(*of_modes, s=14, color="silver", label="modes")
        axes.scatter(*group, s=46, marker="*", color="tab:blue", label=f"group of {IPC}")
        axes.scatter([0], [0], s=60, marker="+", color="tab:red", label="mean of the class")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("first principal component", fontsize=8)
    panels[0].set_ylabel("second", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _pictures(rows: dict[str, list[Image.Image]], columns: Sequence[str]) -> Figure:
    """Return rows of grey pictures with a name at each, and at each column."""
    figure = Figure(figsize=(1.5 + len(columns), 0.3 + len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, (name, images) in zip(panels, rows.items(), strict=True):
        row[0].set_ylabel(name, rotation=0, horizontalalignment="right", verticalalignment="center")
        for axes, image in zip(row, images, strict=True):
            axes.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
    for axes, name in zip(panels[0], columns, strict=True):
        axes.set_title(name, fontsize=9)
    return figure


FIGURES: dict[str, Callable[[Decoder], Figure]] = {
    "modes": draw_modes,
    "timesteps": draw_timesteps,
    "guidance": draw_guidance,
    "groups": draw_groups,
    "spread": draw_spread,
}


def save(figure: Figure, path: Path) -> None:
    """Save a figure as a PNG file of few colours, which is small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    with Image.open(buffer, formats=("PNG",)) as image:
        small = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    replace_file(path, lambda place: small.save(place, "PNG", optimize=True))


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--only", choices=FIGURES, action="append", help="figures to draw; all by default")
    arguments = parser.parse_args()
    decoder = Decoder.embedded()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or FIGURES:
        path = arguments.output / f"{name}.png"
        save(FIGURES[name](decoder), path)
        print(path)


if __name__ == "__main__":
    main()
