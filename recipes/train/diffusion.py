"""Train the class-conditional DiT of a latent diffusion model: images + VAE -> a diffusers pipeline folder.

    python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml

Needs the VAE of `recipes.train.vae`. Resumes from `OUTPUT/checkpoint.pt`. Writes `settings.yaml`,
`metrics.csv`, sample grids `samples-STEP.png` and, at the end, `model/` with `model_index.json` (the classes'
names and the frame around the images in it, so that `d3hr build` knows them), `transformer/` (averaged
weights), `vae/` and `scheduler/`, stored in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torchvision.utils import save_image
from tqdm import tqdm

from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.layout import WEIGHTS
from d3hr_datasets.diffusion.loading import PADDING
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.io.untrusted_files import file_sha256
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.runs.timer import Every
from recipes.common.learning_rates import one_cycle, warmup_stable_decay
from recipes.common.prerequisites import need, training_of
from recipes.common.program import program
from recipes.common.settings import settings_parser
from recipes.common.tensor_cache import cached_tensors
from recipes.common.training_loop import TrainingLoop, TrainingSettings

WARMUP_STEPS = 1000  # of a run with `decay_share`
VALIDATION_IMAGES = 4096  # enough for three digits of the error


@dataclass(frozen=True, kw_only=True)
class DiTSettings(TrainingSettings):
    """Settings of one DiT training on the latents of `vae`.

    The learning rate rises, and falls over the whole run in a half cosine; or, with `decay_share`, it stays
    until that share of the run is left and then falls to 0 along a line. Such a run may be told its end late:
    up to the fall it is the same for any number of epochs.

    Args:
        vae: Folder of the VAE.
        patch_size: Side of a token, in latents.
        num_layers: Blocks.
        num_attention_heads: Of each block.
        attention_head_dim: Of each head.
        label_dropout: Share of images whose label is left out, for guidance.
        snr_gamma: Timesteps of a larger ratio of signal to noise count less (Min-SNR, arXiv 2303.09556).
        bf16: Compute under autocast to bfloat16.
        torch_compile: Compile the DiT.
        decay_share: See above.
        validation_split: Of the images; it must share none with `split`. The error on it, of the averaged
            weights, goes to `validation.csv` with every sample grid.
        minutes_between_samples: While training.
    """

    vae: str
    patch_size: int
    num_layers: int
    num_attention_heads: int
    attention_head_dim: int
    label_dropout: float
    snr_gamma: float
    bf16: bool = False
    torch_compile: bool = False
    decay_share: float | None = None
    validation_split: str | None = None
    minutes_between_samples: float = 15.0


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: torch.Tensor, padding: int) -> torch.Tensor:
    """Return the posterior mean of every image, unscaled, (N, C, H, W).

    The mean, since it is what inversion starts from and what decodes best.
    """
    batches = tqdm(images.split(128), desc="encoding", mininterval=20)
    return torch.cat([vae.encode(to_model_range(batch, padding)).latent_dist.mean for batch in batches])


@dataclass(frozen=True)
class Latents:
    """Images as the DiT sees them: scaled latents (N, C, H, W), labels (N,), and names of the classes."""

    values: torch.Tensor
    targets: torch.Tensor
    classes: list[str]


def latents_to_train_on(settings: DiTSettings, vae: AutoencoderKL, folder: Path, download: bool) -> Latents:
    """Return the latents of `split`, made and written to the run's folder first."""
    images, targets, classes = load_images(
        settings.source, settings.split, settings.image_size, vae.config.in_channels, download
    )
    weights_of_vae = file_sha256(Path(settings.vae) / f"{WEIGHTS}.safetensors")
    encoded = cached_tensors(
        folder / f"latents-{weights_of_vae[:16]}.safetensors",
        lambda: {"mean": encode_all(vae, images, settings.padding)},
    )
    return Latents(encoded["mean"] * vae.config.scaling_factor, targets, classes)


def latents_to_validate_on(settings: DiTSettings, vae: AutoencoderKL, download: bool) -> Latents | None:
    """Return the latents of the first images of `validation_split`, if there is one."""
    if settings.validation_split is None:
        return None
    images, targets, classes = load_images(
        settings.source, settings.validation_split, settings.image_size, vae.config.in_channels, download
    )
    encoded = encode_all(vae, images[:VALIDATION_IMAGES], settings.padding)
    return Latents(encoded * vae.config.scaling_factor, targets[:VALIDATION_IMAGES], classes)


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


class NoiseError:
    """The error of the DiT's predicted noise, less for timesteps of little noise, and without some labels."""

    def __init__(
        self,
        transformer: DiTTransformer2DModel,
        latents: Latents,
        alphas_cumprod: torch.Tensor,
        settings: DiTSettings,
    ) -> None:
        self.transformer, self.latents, self.settings = transformer, latents, settings
        self.alphas_cumprod = alphas_cumprod
        snr = alphas_cumprod / (1 - alphas_cumprod)
        self.weights = snr.clamp(max=settings.snr_gamma) / snr
        self.errors: list[float] = []  # since `metrics` was called

    def loss(self, index: torch.Tensor, step: int) -> torch.Tensor:
        settings, latents = self.settings, self.latents.values[index]
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(len(self.alphas_cumprod), (len(index),), generator=generator)
        # Labels are dropped here: in training mode every block of diffusers' model draws its own.
        drop = torch.rand(len(index), generator=generator) < settings.label_dropout
        labels = torch.where(drop, len(self.latents.classes), self.latents.targets[index])
        noisy = add_noise(latents, noise, self.alphas_cumprod[timesteps])
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            predicted = self.transformer(noisy, timestep=timesteps, class_labels=labels).sample
        error = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
        self.errors.append(error.mean().item())
        return (self.weights[timesteps] * error).mean()  # type: ignore[no-any-return]

    def metrics(self) -> dict[str, float]:
        mean = sum(self.errors) / len(self.errors)
        self.errors = []
        return {"mse": mean}


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return latents (B, C, H, W) noised to a timestep each, of which `alphas_cumprod` (B,) are."""
    alpha = alphas_cumprod.view(-1, 1, 1, 1)
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


@torch.no_grad()
def mean_error(transformer: DiTTransformer2DModel, latents: Latents, alphas_cumprod: torch.Tensor) -> float:
    """Return the mean squared error of predicted noise, the same noise and timesteps in every call."""
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for batch, labels in zip(latents.values.split(256), latents.targets.split(256), strict=True):
        noise = torch.randn(batch.shape, generator=generator)
        timesteps = torch.randint(len(alphas_cumprod), (len(batch),), generator=generator)
        noisy = add_noise(batch, noise, alphas_cumprod[timesteps])
        predicted = transformer(noisy, timestep=timesteps, class_labels=labels).sample
        total += (predicted - noise).square().mean(dim=(1, 2, 3)).sum().item()
    return total / len(latents.values)


def train(settings: DiTSettings, download: bool = False) -> None:
    need(settings.vae, training_of(Path(settings.vae).parent, "train.vae"))
    run = RunFolder(settings.output, settings)
    vae = AutoencoderKL.from_pretrained(settings.vae)
    latents = latents_to_train_on(settings, vae, run.path, download)
    validation = latents_to_validate_on(settings, vae, download)
    torch.manual_seed(settings.seed)
    # In training mode its blocks would drop labels; nothing else in it depends on the mode.
    transformer = make_transformer(settings, vae, len(latents.classes)).eval()
    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", clip_sample=False, set_alpha_to_one=True
    )
    optimizer = torch.optim.AdamW(
        transformer.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    loop = TrainingLoop(run, settings, "transformer", transformer, optimizer)
    if settings.torch_compile:
        check_compiler("cpu")
        transformer.compile()

    def look() -> LatentDiffusion:
        averaged = make_transformer(settings, vae, len(latents.classes))
        averaged.load_state_dict(loop.averaged_weights())
        model = LatentDiffusion(averaged, vae, scheduler, device="cpu")
        save_samples(model, run.path / f"samples-{loop.step}.png")
        if validation is not None:
            error = mean_error(model.transformer, validation, scheduler.alphas_cumprod)
            epoch = loop.step / (len(latents.values) // settings.batch_size)
            run.log(table="validation", step=loop.step, epoch=round(epoch, 2), mse=error)
        return model

    rate_factor = partial(one_cycle, warmup=0.05)
    if settings.decay_share is not None:
        rate_factor = partial(warmup_stable_decay, warmup=WARMUP_STEPS, decay_share=settings.decay_share)
    objective = NoiseError(transformer, latents, scheduler.alphas_cumprod, settings)
    samples = Every(settings.minutes_between_samples)
    for _ in loop.steps(objective, len(latents.values), rate_factor):
        if samples.is_due():
            look()
    save_pipeline(look(), latents.classes, settings.padding, run.path / "model")


def save_pipeline(model: LatentDiffusion, classes: list[str], padding: int, folder: Path) -> None:
    """Save a model as a diffusers pipeline in half precision that says its classes and its frame."""
    pipeline = DiTPipeline(model.transformer.half(), model.vae.half(), model.scheduler)
    label_map = {str(label): name for label, name in enumerate(classes)}
    pipeline.register_to_config(id2label=label_map, **{PADDING: padding})
    pipeline.save_pretrained(folder)


@program
def main() -> None:
    parser = settings_parser(DiTSettings, __doc__)
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    train(load_settings(DiTSettings, arguments.config, arguments.set), arguments.download)


if __name__ == "__main__":
    main()
