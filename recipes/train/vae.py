"""Train the VAE of a latent diffusion model: images -> `AutoencoderKL` folder in diffusers' layout.

    python -m recipes.train.vae recipes/configs/vae_fashion_mnist.yaml
    python -m recipes.train.vae recipes/configs/decoder_fashion_mnist.yaml

With `decoder_of` only the decoder of a trained VAE is trained on, with a perceptual term: latents stay
what they are, and with them every diffusion model and artifact made of them.

Resumes from `OUTPUT/checkpoint.pt` when it is there. Writes `settings.yaml`, `metrics.csv`, a grid
`reconstructions.png` (images above their reconstructions) and, at the end, `vae/`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from d3hr_datasets.diffusion.pixels import to_model_range
from recipes.common.ema import ExponentialMovingAverage
from recipes.common.program import need, program, training_of
from recipes.common.run import Run
from recipes.common.schedules import one_cycle, shuffled_batches
from recipes.common.settings import load_settings
from recipes.data.images import load_images
from recipes.train.perceptual import PerceptualDistance


@dataclass(frozen=True)
class VAESettings:
    """Settings of one VAE training; `padding` pixels of black frame make the side divisible by 8.

    Args:
        decoder_of: Folder of a VAE whose decoder is trained on; its encoder stays as it is. Its
            architecture holds, and `kl_weight` has no effect.
        perceptual_weight: Of `PerceptualDistance`, next to the mean squared error.
    """

    output: str
    source: str
    image_size: int
    padding: int
    channels: int
    latent_channels: int
    block_out_channels: list[int]
    layers_per_block: int
    norm_num_groups: int
    epochs: int
    batch_size: int
    learning_rate: float
    kl_weight: float
    ema_decay: float
    decoder_of: str = ""
    perceptual_weight: float = 0.0
    split: str = "train+held-out"
    seed: int = 0
    log_every: int = 100
    minutes_between_checkpoints: float = 5.0


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


def train(settings: VAESettings, download: bool = False) -> None:
    if settings.decoder_of:
        need(settings.decoder_of, training_of(Path(settings.decoder_of).parent, "train.vae"))
    run = Run(settings.output, settings)
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
    steps_per_epoch = len(images) // settings.batch_size
    total = steps_per_epoch * settings.epochs
    average = ExponentialMovingAverage(vae, settings.ema_decay)
    step = 0
    state = run.load_checkpoint()
    if state is not None:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        average.state, average.steps = state["average"], state["step"]
        step = state["step"]
    print(f"{sum(p.numel() for p in vae.parameters()):,} parameters, from step {step}")

    def loss_of(pixels: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        posterior = vae.encode(pixels).latent_dist
        reconstruction = vae.decode(posterior.sample(generator)).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        distance = torch.zeros(())
        if perceptual is not None:
            side = pixels.shape[-1] - settings.padding
            inner = (..., slice(settings.padding, side), slice(settings.padding, side))
            distance = perceptual(reconstruction[inner], pixels[inner])
        return F.mse_loss(reconstruction, pixels), kl, distance

    saved = started = time.monotonic()
    first = step
    progress = tqdm(total=total, initial=step, mininterval=20)
    for index in shuffled_batches(len(images), settings.batch_size, settings.seed, step):
        if step == total:
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * one_cycle(step, total, warmup=0.1)
        pixels = to_model_range(images[index], settings.padding)
        error, kl, distance = loss_of(pixels, step)
        optimizer.zero_grad(set_to_none=True)
        (error + settings.kl_weight * kl + settings.perceptual_weight * distance).backward()
        norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae)
        step += 1
        progress.update()
        if step % settings.log_every == 0:
            rate = (step - first) * settings.batch_size / (time.monotonic() - started)
            run.log(
                step=step,
                mse=error.item(),
                kl=kl.item(),
                perceptual=distance.item(),
                gradient_norm=norm.item(),
                learning_rate=optimizer.param_groups[0]["lr"],
                images_per_second=round(rate, 1),
            )
        if time.monotonic() - saved > 60 * settings.minutes_between_checkpoints:
            saved = time.monotonic()
            run.save_checkpoint(
                {
                    "vae": vae.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "average": average.state,
                }
            )
    progress.close()
    vae.load_state_dict(average.state)
    if not settings.decoder_of:
        vae.register_to_config(scaling_factor=scaling_factor(vae, images[:10_000], settings))
    save_reconstructions(vae, held_out[:16], settings.padding, run.folder / "reconstructions.png")
    vae.save_pretrained(run.folder / "vae")
    print(evaluate(vae, held_out, settings))


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a YAML file with the fields of VAESettings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    train(load_settings(VAESettings, arguments.config, arguments.set), arguments.download)


if __name__ == "__main__":
    main()
