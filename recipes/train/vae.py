"""Train the VAE of a latent diffusion model: images -> `AutoencoderKL` folder in diffusers' layout.

    python -m recipes.train.vae recipes/configs/vae_fashion_mnist.yaml
    python -m recipes.train.vae recipes/configs/decoder_fashion_mnist.yaml

With `decoder_of` only the decoder of a trained VAE is trained on, with a perceptual term: latents stay
what they are, and with them every diffusion model and artifact made of them.

Resumes from `OUTPUT/checkpoint.pt` when it is there. Writes `settings.yaml`, `metrics.csv`, a grid
`reconstructions.png` (images above their reconstructions) and, at the end, `vae/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image

from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.settings_files import load_settings
from recipes.common.learning_rates import one_cycle
from recipes.common.prerequisites import need, training_of
from recipes.common.program import program
from recipes.common.settings import settings_parser
from recipes.common.training_loop import TrainingLoop, TrainingSettings
from recipes.train.perceptual import PerceptualDistance


@dataclass(frozen=True, kw_only=True)
class VAESettings(TrainingSettings):
    """Settings of one VAE training.

    Args:
        channels: Of the images.
        latent_channels: Of the latents.
        block_out_channels: Of each level; every one but the last halves the side.
        layers_per_block: ResNet blocks a level.
        norm_num_groups: Of group norm.
        kl_weight: Of the KL divergence from a standard normal, next to the mean squared error.
        decoder_of: Folder of a VAE whose decoder is trained on; its encoder stays as it is. Its
            architecture holds, and `kl_weight` has no effect.
        perceptual_weight: Of `PerceptualDistance`, next to the mean squared error.
    """

    channels: int
    latent_channels: int
    block_out_channels: list[int]
    layers_per_block: int
    norm_num_groups: int
    kl_weight: float
    decoder_of: str = ""
    perceptual_weight: float = 0.0


def make_vae(settings: VAESettings) -> AutoencoderKL:
    if settings.decoder_of:
        vae = AutoencoderKL.from_pretrained(settings.decoder_of)
        vae.encoder.requires_grad_(False)
        return vae
    levels = len(settings.block_out_channels)
    return AutoencoderKL(
        in_channels=settings.channels,
        out_channels=settings.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(settings.block_out_channels),
        layers_per_block=settings.layers_per_block,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_num_groups,
        sample_size=settings.image_size + 2 * settings.padding,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def psnr(images: torch.Tensor, reconstructions: torch.Tensor, padding: int) -> torch.Tensor:
    """Return the PSNR in dB of each image (B,), over the unpadded pixels, for values in [-1, 1]."""
    side = images.shape[-1] - padding
    error = (images - reconstructions.clamp(-1, 1))[..., padding:side, padding:side] / 2
    return -10 * error.square().mean(dim=(1, 2, 3)).log10()


@torch.no_grad()
def evaluate(vae: AutoencoderKL, images: torch.Tensor, settings: VAESettings) -> dict[str, float]:
    vae.eval()
    values = []
    for batch in images.split(settings.batch_size):
        pixels = to_model_range(batch, settings.padding)
        values.append(psnr(pixels, vae.decode(vae.encode(pixels).latent_dist.mean).sample, settings.padding))
    vae.train()
    each = torch.cat(values)
    return {
        "psnr": each.mean().item(),
        "psnr_of_mean_error": -10 * (10 ** (-each / 10)).mean().log10().item(),
    }


@torch.no_grad()
def save_reconstructions(vae: AutoencoderKL, images: torch.Tensor, padding: int, path: Path) -> None:
    vae.eval()
    pixels = to_model_range(images, padding)
    both = torch.cat([pixels, vae.decode(vae.encode(pixels).latent_dist.mean).sample])
    save_image(make_grid(both.clamp(-1, 1) / 2 + 0.5, nrow=len(images)), path)
    vae.train()


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, images: torch.Tensor, settings: VAESettings) -> float:
    """Return 1 / std of the latents, as for every latent diffusion model (LDM, section D.1)."""
    vae.eval()
    latents = [
        vae.encode(to_model_range(batch, settings.padding)).latent_dist.mean
        for batch in images.split(settings.batch_size)
    ]
    return 1 / torch.cat(latents).std().item()


class ReconstructionError:
    """The loss of a VAE on uint8 images (N, C, S, S): squared error, KL divergence, perceptual distance."""

    def __init__(
        self,
        vae: AutoencoderKL,
        images: torch.Tensor,
        perceptual: PerceptualDistance | None,
        settings: VAESettings,
    ) -> None:
        self.vae, self.images, self.perceptual, self.settings = vae, images, perceptual, settings
        self.last: dict[str, torch.Tensor] = {}

    def loss(self, index: torch.Tensor, step: int) -> torch.Tensor:
        settings = self.settings
        pixels = to_model_range(self.images[index], settings.padding)
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        posterior = self.vae.encode(pixels).latent_dist
        reconstruction = self.vae.decode(posterior.sample(generator)).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        distance = torch.zeros(())
        if self.perceptual is not None:
            side = pixels.shape[-1] - settings.padding
            inner = (..., slice(settings.padding, side), slice(settings.padding, side))
            distance = self.perceptual(reconstruction[inner], pixels[inner])
        error = F.mse_loss(reconstruction, pixels)
        self.last = {"mse": error, "kl": kl, "perceptual": distance}
        return error + settings.kl_weight * kl + settings.perceptual_weight * distance  # type: ignore[no-any-return]

    def metrics(self) -> dict[str, float]:
        return {name: value.item() for name, value in self.last.items()}


def train(settings: VAESettings, download: bool = False) -> None:
    if settings.decoder_of:
        need(settings.decoder_of, training_of(Path(settings.decoder_of).parent, "train.vae"))
    run = RunFolder(settings.output, settings)
    images, labels, _ = load_images(
        settings.source, settings.split, settings.image_size, settings.channels, download
    )
    held_out, _, _ = load_images(
        settings.source, "held-out", settings.image_size, settings.channels, download
    )
    torch.manual_seed(settings.seed)
    vae = make_vae(settings)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in vae.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=1e-3,
        fused=True,
    )
    perceptual = None
    if settings.perceptual_weight:
        perceptual = PerceptualDistance.train_on(images, labels, settings.seed)
    loop = TrainingLoop(run, settings, "vae", vae, optimizer)
    objective = ReconstructionError(vae, images, perceptual, settings)
    for _ in loop.steps(objective, len(images), partial(one_cycle, warmup=0.1)):
        pass
    vae.load_state_dict(loop.averaged_weights())
    if not settings.decoder_of:
        vae.register_to_config(scaling_factor=scaling_factor(vae, images[:10_000], settings))
    save_reconstructions(vae, held_out[:16], settings.padding, run.path / "reconstructions.png")
    vae.save_pretrained(run.path / "vae")
    print(evaluate(vae, held_out, settings))


@program
def main() -> None:
    parser = settings_parser(VAESettings, __doc__)
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    train(load_settings(VAESettings, arguments.config, arguments.set), arguments.download)


if __name__ == "__main__":
    main()
