"""Train the class-conditional DiT of a latent diffusion model: images + VAE -> a diffusers pipeline folder.

    python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml

Needs the VAE of `recipes.train.vae`. Resumes from `OUTPUT/checkpoint.pt`. Writes `settings.yaml`,
`metrics.csv`, sample grids `samples-STEP.png` and, at the end, `model/` with `model_index.json` (the classes'
names and the frame around the images in it, so that `d3hr build` knows them), `transformer/` (averaged
weights), `vae/` and `scheduler/`, stored in half precision.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torchvision.utils import save_image
from tqdm import tqdm

from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.loading import PADDING
from d3hr_datasets.diffusion.pixels import to_model_range
from d3hr_datasets.io.foreign import file_sha256
from recipes.common.ema import ExponentialMovingAverage
from recipes.common.program import need, program, training_of
from recipes.common.results import cached_tensors
from recipes.common.run import Run
from recipes.common.schedules import one_cycle, shuffled_batches, warmup_stable_decay
from recipes.common.settings import load_settings
from recipes.data.images import load_images

WARMUP_STEPS = 1000  # of a run with `decay_share`
VALIDATION_IMAGES = 4096  # enough for three digits of the error


@dataclass(frozen=True)
class DiTSettings:
    """Settings of one DiT training on the latents of `vae`.

    The learning rate rises, and falls over the whole run in a half cosine; or, with `decay_share`, it stays
    until that share of the run is left and then falls to 0 along a line. Such a run may be told its end late:
    up to the fall it is the same for any number of epochs. `validation_split` must share no image with
    `split`; the error on it, of the averaged weights, goes to `validation.csv` with every sample grid.
    """

    output: str
    vae: str
    source: str
    image_size: int
    padding: int
    patch_size: int
    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    epochs: int
    batch_size: int
    learning_rate: float
    label_dropout: float
    snr_gamma: float
    ema_decay: float
    split: str = "train+held-out"
    seed: int = 0
    bf16: bool = False
    torch_compile: bool = False
    decay_share: float | None = None
    validation_split: str | None = None
    log_every: int = 100
    minutes_between_checkpoints: float = 5.0
    minutes_between_samples: float = 15.0


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: torch.Tensor, padding: int) -> dict[str, torch.Tensor]:
    """Return the posterior mean of every image, unscaled, (N, C, H, W).

    The mean, since it is what inversion starts from and what decodes best.
    """
    batches = tqdm(images.split(128), desc="encoding", mininterval=20)
    return {
        "mean": torch.cat([vae.encode(to_model_range(batch, padding)).latent_dist.mean for batch in batches])
    }


def make_transformer(settings: DiTSettings, vae: AutoencoderKL, num_classes: int) -> DiTTransformer2DModel:
    levels = len(vae.config.block_out_channels)
    return DiTTransformer2DModel(
        num_attention_heads=settings.num_attention_heads,
        attention_head_dim=settings.attention_head_dim,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        num_layers=settings.num_layers,
        sample_size=(settings.image_size + 2 * settings.padding) // 2 ** (levels - 1),
        patch_size=settings.patch_size,
        num_embeds_ada_norm=num_classes,
    )


def save_samples(model: LatentDiffusion, path: Path) -> None:
    """Save ten samples of each of the first ten classes, without and with guidance."""
    classes = torch.arange(min(10, model.num_classes)).repeat(10)
    noise = torch.randn(len(classes), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    grids = []
    for guidance_scale in (1.0, 4.0):
        config = DecodeConfig(timestep=960, num_inference_steps=25, guidance_scale=guidance_scale)
        grids.append(model.decode(model.denoise(noise, classes, config)))
    save_image(torch.cat(grids) / 2 + 0.5, path, nrow=min(10, model.num_classes))


@torch.no_grad()
def mean_error(
    transformer: DiTTransformer2DModel, latents: torch.Tensor, targets: torch.Tensor, alphas: torch.Tensor
) -> float:
    """Return the mean squared error of predicted noise, the same noise and timesteps in every call."""
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for batch, labels in zip(latents.split(256), targets.split(256), strict=True):
        noise = torch.randn(batch.shape, generator=generator)
        timesteps = torch.randint(len(alphas), (len(batch),), generator=generator)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * batch + (1 - alpha).sqrt() * noise
        predicted = transformer(noisy, timestep=timesteps, class_labels=labels).sample
        total += (predicted - noise).square().mean(dim=(1, 2, 3)).sum().item()
    return total / len(latents)


def train(settings: DiTSettings, download: bool = False) -> None:
    need(settings.vae, training_of(Path(settings.vae).parent, "train.vae"))
    run = Run(settings.output, settings)
    vae = AutoencoderKL.from_pretrained(settings.vae)
    images, targets, classes = load_images(
        settings.source, settings.split, settings.image_size, vae.config.in_channels, download
    )
    weights_of_vae = file_sha256(Path(settings.vae) / "diffusion_pytorch_model.safetensors")
    encoded = cached_tensors(
        run.folder / f"latents-{weights_of_vae[:16]}.safetensors",
        lambda: encode_all(vae, images, settings.padding),
    )
    data = encoded["mean"] * vae.config.scaling_factor
    validation = None
    if settings.validation_split is not None:
        held_out, held_out_targets, _ = load_images(
            settings.source, settings.validation_split, settings.image_size, vae.config.in_channels, download
        )
        held_out_latents = encode_all(vae, held_out[:VALIDATION_IMAGES], settings.padding)["mean"]
        validation = held_out_latents * vae.config.scaling_factor, held_out_targets[:VALIDATION_IMAGES]
    torch.manual_seed(settings.seed)
    transformer = make_transformer(settings, vae, len(classes))
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", clip_sample=False, set_alpha_to_one=True
    )
    alphas = scheduler.alphas_cumprod
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=settings.snr_gamma) / snr
    optimizer = torch.optim.AdamW(
        transformer.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    per_epoch = len(data) // settings.batch_size
    total = per_epoch * settings.epochs
    # Labels are dropped here. In training mode every block of diffusers' model would draw its own
    # dropped labels; nothing else in it depends on the mode.
    transformer.eval()
    average = ExponentialMovingAverage(transformer, settings.ema_decay)
    step = 0
    state = run.load_checkpoint()
    if state is not None:
        transformer.load_state_dict(state["transformer"])
        optimizer.load_state_dict(state["optimizer"])
        average.state, average.steps, step = state["average"], state["step"], state["step"]
    if settings.torch_compile:
        check_compiler("cpu")
        transformer.compile()
    print(f"{sum(p.numel() for p in transformer.parameters()):,} parameters, from step {step}", flush=True)

    def averaged() -> LatentDiffusion:
        copy = make_transformer(settings, vae, len(classes))
        copy.load_state_dict(average.state)
        return LatentDiffusion(copy, vae, scheduler, device="cpu")

    def look(model: LatentDiffusion, step: int) -> None:
        save_samples(model, run.folder / f"samples-{step}.png")
        if validation is not None:
            error = mean_error(model.transformer, *validation, alphas)
            run.log(table="validation", step=step, epoch=round(step / per_epoch, 2), mse=error)

    saved = sampled = started = time.monotonic()
    first, errors = step, []
    progress = tqdm(total=total, initial=step, mininterval=20)
    for index in shuffled_batches(len(data), settings.batch_size, settings.seed, step):
        if step == total:
            break
        if settings.decay_share is None:
            factor = one_cycle(step, total, warmup=0.05)
        else:
            factor = warmup_stable_decay(step, total, WARMUP_STEPS, settings.decay_share)
        rate = settings.learning_rate * factor
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        latents = data[index]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(len(alphas), (len(index),), generator=generator)
        drop = torch.rand(len(index), generator=generator) < settings.label_dropout
        labels = torch.where(drop, len(classes), targets[index])
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            predicted = transformer(noisy, timestep=timesteps, class_labels=labels).sample
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        transformer.zero_grad(set_to_none=True)
        (weights[timesteps] * error).mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        average.update(transformer)
        step += 1
        errors.append(error.mean().item())
        progress.update()
        if step % settings.log_every == 0:
            speed = (step - first) * settings.batch_size / (time.monotonic() - started)
            run.log(
                step=step,
                mse=sum(errors) / len(errors),
                gradient_norm=norm.item(),
                learning_rate=rate,
                images_per_second=round(speed, 1),
            )
            errors = []
        if time.monotonic() - saved > 60 * settings.minutes_between_checkpoints:
            saved = time.monotonic()
            run.save_checkpoint(
                {
                    "transformer": transformer.state_dict(),
                    "step": step,
                    "optimizer": optimizer.state_dict(),
                    "average": average.state,
                }
            )
        if time.monotonic() - sampled > 60 * settings.minutes_between_samples:
            sampled = time.monotonic()
            look(averaged(), step)
    progress.close()
    model = averaged()
    look(model, step)
    model.transformer.half(), model.vae.half()
    pipeline = DiTPipeline(model.transformer, model.vae, scheduler)
    label_map = {str(label): name for label, name in enumerate(classes)}
    pipeline.register_to_config(id2label=label_map, **{PADDING: settings.padding})
    pipeline.save_pretrained(run.folder / "model")


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a YAML file with the fields of DiTSettings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    train(load_settings(DiTSettings, arguments.config, arguments.set), arguments.download)


if __name__ == "__main__":
    main()
