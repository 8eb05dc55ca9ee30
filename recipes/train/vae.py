"""Train the VAE of a latent diffusion model: images -> `AutoencoderKL` folder in diffusers' layout.

    python -m recipes.train.vae recipes/configs/vae_fashion_mnist.yaml
    python -m recipes.train.vae recipes/configs/decoder_fashion_mnist.yaml

Runs on a GPU where there is one, on several by `accelerate launch`, and on the CPU.

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

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.training.batches import shuffled_batches
from d3hr_datasets.training.diffusion import training_accelerator
from d3hr_datasets.training.learning_rates import one_cycle
from d3hr_datasets.training.loop import Drawn, TrainingLoop
from d3hr_datasets.training.objective import DTYPES
from d3hr_datasets.training.settings import FREE, TrainingSettings
from recipes.common.prerequisites import need, training_of
from recipes.common.program import program
from recipes.common.settings import settings_parser
from recipes.train.perceptual import PerceptualDistance


@dataclass(frozen=True, kw_only=True)
class VAESettings(TrainingSettings):
    """Settings of one VAE training.

    Args:
        image_size: Side of the images.
        padding: Pixels of black frame around them, which makes the side divisible by what the VAE asks for.
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

    image_size: int
    padding: int
    channels: int
    latent_channels: int
    block_out_channels: list[int]
    layers_per_block: int
    norm_num_groups: int
    kl_weight: float
    decoder_of: str = ""
    perceptual_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("image_size", self.image_size, 1)
        check_int("padding", self.padding, 0)
        check_int("channels", self.channels, 1, 4)


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
        pixels = to_model_range(batch, settings.padding).to(vae.device)
        values.append(psnr(pixels, vae.decode(vae.encode(pixels).latent_dist.mean).sample, settings.padding))
    vae.train()
    each = torch.cat(values).cpu()
    return {
        "psnr": each.mean().item(),
        "psnr_of_mean_error": -10 * (10 ** (-each / 10)).mean().log10().item(),
    }


@torch.no_grad()
def save_reconstructions(vae: AutoencoderKL, images: torch.Tensor, padding: int, path: Path) -> None:
    vae.eval()
    pixels = to_model_range(images, padding).to(vae.device)
    both = torch.cat([pixels, vae.decode(vae.encode(pixels).latent_dist.mean).sample])
    save_image(make_grid(both.clamp(-1, 1) / 2 + 0.5, nrow=len(images)), path)
    vae.train()


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, images: torch.Tensor, settings: VAESettings) -> float:
    """Return 1 / std of the latents, as for every latent diffusion model (LDM, section D.1)."""
    vae.eval()
    latents = [
        vae.encode(to_model_range(batch, settings.padding).to(vae.device)).latent_dist.mean.cpu()
        for batch in images.split(settings.batch_size)
    ]
    return 1 / torch.cat(latents).std().item()


class Reconstruction(torch.nn.Module):
    """A VAE as the objective calls it; what Accelerate prepares, so that several processes share it."""

    def __init__(self, vae: AutoencoderKL, mixed_precision: str) -> None:
        super().__init__()
        self.vae, self._dtype = vae, DTYPES.get(mixed_precision)

    def forward(
        self, pixels: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the reconstruction of a sample of the posterior, and its mean and log variance."""
        dtype = self._dtype or torch.float32
        with torch.autocast(pixels.device.type, dtype, enabled=self._dtype is not None):
            posterior = self.vae.encode(pixels).latent_dist
            decoded = self.vae.decode(posterior.mean + posterior.std * noise).sample
        return decoded.float(), posterior.mean.float(), posterior.logvar.float()


class ReconstructionError:
    """The loss of a VAE on uint8 images (N, C, S, S): squared error, KL divergence, perceptual distance."""

    def __init__(
        self,
        reconstruct: torch.nn.Module,
        latent_shape: tuple[int, ...],
        images: torch.Tensor,
        perceptual: PerceptualDistance | None,
        settings: VAESettings,
        device: torch.device,
    ) -> None:
        self.reconstruct, self.latent_shape, self.images = reconstruct, latent_shape, images
        self.perceptual, self.settings, self.device = perceptual, settings, device
        self.last: dict[str, torch.Tensor] = {}

    def draw(self, count: int, step: int) -> Drawn:
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        return {"noise": torch.randn((count, *self.latent_shape), generator=generator)}

    def loss(self, index: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        settings = self.settings
        pixels = to_model_range(self.images[index], settings.padding).to(self.device)
        reconstruction, mean, logvar = self.reconstruct(pixels, drawn["noise"].to(self.device))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        distance = torch.zeros((), device=self.device)
        if self.perceptual is not None:
            side = pixels.shape[-1] - settings.padding
            inner = (..., slice(settings.padding, side), slice(settings.padding, side))
            distance = self.perceptual(reconstruction[inner], pixels[inner])
        error = F.mse_loss(reconstruction, pixels)
        self.last = {"mse": error, "kl": kl, "perceptual": distance}
        return error + settings.kl_weight * kl + settings.perceptual_weight * distance  # type: ignore[no-any-return]

    def metrics(self) -> dict[str, torch.Tensor]:
        return self.last


def train(settings: VAESettings, download: bool = False) -> None:
    if settings.decoder_of:
        need(settings.decoder_of, training_of(Path(settings.decoder_of).parent, "train.vae"))
    accelerator = training_accelerator()
    with accelerator.main_process_first():  # which downloads
        run = RunFolder(settings.output, settings, FREE)
        images, labels, _ = load_images(
            settings.source, settings.split, settings.image_size, settings.channels, download
        )
        held_out, _, _ = load_images(
            settings.source, "held-out", settings.image_size, settings.channels, download
        )
    torch.manual_seed(settings.seed)
    vae = make_vae(settings).to(accelerator.device)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in vae.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=1e-3,
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
    perceptual = None
    if settings.perceptual_weight:
        perceptual = PerceptualDistance.train_on(images, labels, settings.seed).to(accelerator.device)
    reconstruct = accelerator.prepare_model(Reconstruction(vae, settings.mixed_precision))
    loop = TrainingLoop(run, settings, "vae", vae, optimizer, accelerator, reconstruct)
    side = (settings.image_size + 2 * settings.padding) >> (len(vae.config.block_out_channels) - 1)
    shape = (vae.config.latent_channels, side, side)
    objective = ReconstructionError(reconstruct, shape, images, perceptual, settings, accelerator.device)
    batches = partial(shuffled_batches, len(images), settings.batch_size, settings.seed)
    total = settings.total_steps(len(images))
    for _ in loop.steps(objective, batches, partial(one_cycle, warmup=0.1), total):
        pass
    if accelerator.is_main_process:
        vae.load_state_dict(loop.averaged_weights())
        save(vae, images, held_out, run.path, settings)
    accelerator.wait_for_everyone()


def save(
    vae: AutoencoderKL, images: torch.Tensor, held_out: torch.Tensor, folder: Path, settings: VAESettings
) -> None:
    """Write a trained VAE and what it makes of held-out images."""
    if not settings.decoder_of:
        vae.register_to_config(scaling_factor=scaling_factor(vae, images[:10_000], settings))
    save_reconstructions(vae, held_out[:16], settings.padding, folder / "reconstructions.png")
    vae.save_pretrained(folder / "vae")
    print(evaluate(vae, held_out, settings))


@program
def main() -> None:
    parser = settings_parser(VAESettings, __doc__)
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    train(load_settings(VAESettings, arguments.config, arguments.set), arguments.download)


if __name__ == "__main__":
    main()
