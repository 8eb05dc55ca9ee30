"""Train the class-conditional DiT of a latent diffusion model: images + VAE -> a diffusers pipeline folder.

    python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml

The same as `d3hr train diffusion`, for settings whose VAE or base model another recipe makes, and says which
where that is missing.
"""

from __future__ import annotations

from pathlib import Path

from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.training.diffusion import train_diffusion
from d3hr_datasets.training.settings import DiffusionTraining
from recipes.common.prerequisites import need, training_of
from recipes.common.program import program
from recipes.common.settings import settings_parser


@program
def main() -> None:
    parser = settings_parser(DiffusionTraining, __doc__)
    parser.add_argument("--download", action="store_true", help="let torchvision download the images")
    arguments = parser.parse_args()
    settings = load_settings(DiffusionTraining, arguments.config, arguments.set)
    if settings.vae is not None:
        need(settings.vae, training_of(Path(settings.vae).parent, "train.vae"))
    if settings.model is not None and Path(settings.model).parts[:1] == ("runs",):
        need(settings.model, training_of(Path(settings.model).parent, "train.diffusion"))
    print(train_diffusion(settings, arguments.download))


if __name__ == "__main__":
    main()
