"""The latent diffusion model: images <-> latents <-> inverted latents.

The only module that knows scaling factors, the null class, dtype and device; `pixel_range` knows pixels. It
takes diffusers' models as `loading` loads them from a folder or the Hub.

Models predict noise or v on a schedule of betas, as DDIM takes them. Flow matching is refused: diffusers has
no pipeline of a class-conditional flow-matching transformer, so there is no layout to load. A scheduler
without betas (`FlowMatchEulerDiscreteScheduler`) is a `ModelFormatError` when the model is loaded, and so is
another `prediction_type` ("flow_prediction") at the model's first evaluation.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.config.timesteps import CLEAN, check_on_grid, timestep_grid
from d3hr_datasets.diffusion.ddim import denoise_latents, invert_latents
from d3hr_datasets.diffusion.loading import check_parts, load_parts
from d3hr_datasets.errors import ConfigError, ModelFormatError
from d3hr_datasets.numerics.devices import best_device_type
from d3hr_datasets.numerics.torch_settings import neutral

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

# Latents, or images, in the model at a time unless told otherwise: memory does not grow with groups.
CHUNK = BATCH_SIZE


class LatentDiffusion:
    """A class-conditional latent diffusion model of diffusers, ready for inversion and denoising.

    What it computes depends on the precision of the model alone, not on the caller's autocast, default dtype,
    default device, gradient mode, or leave to use TF32 (`numerics.torch_settings`).

    Args:
        transformer: Predicts noise or v from (latents, timestep, class label).
        vae: Encodes and decodes images.
        scheduler: The noise schedule.
        device: Where to run; CUDA if there is one, else MPS, else the CPU.

    Raises:
        ModelFormatError: Transformer, VAE and schedule are not of a kind this library can use, or do not
            fit each other.
        ConfigError: PyTorch knows or finds no such device.
    """

    @neutral()
    def __init__(
        self,
        transformer: DiTTransformer2DModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        device: torch.device | str | None = None,
    ) -> None:
        check_parts(transformer, vae, scheduler)
        if device is None:
            device = best_device_type()
        try:
            self.device = torch.device(device)
            transformer.to(self.device)
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ConfigError(
                f"the device {str(device)!r} cannot be used: {str(error).splitlines()[0]}; accepted: 'cpu', "
                "and 'cuda', 'mps' or such where PyTorch finds it"
            ) from error
        self.transformer = transformer.eval().requires_grad_(False)
        self.vae = vae.to(self.device).eval().requires_grad_(False)
        self.scheduler = scheduler

    @classmethod
    @neutral()
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        torch_dtype: torch.dtype = torch.float32,
        local_files_only: bool = False,
        allow_bin: bool = False,
    ) -> LatentDiffusion:
        """Load a model in diffusers' layout.

        Args:
            model: A folder with `transformer/`, `vae/` and `scheduler/`, or "ORG/NAME" on the Hub.
            revision: Commit of the Hub repository. A folder has none.
            device: Where to run.
            torch_dtype: Precision of transformer and VAE; DDIM's own arithmetic is always float32.
            local_files_only: Do not ask the Hub.
            allow_bin: Also load .bin weights of a folder, with `weights_only` and a warning (as those of a
                repository that has no others).

        Raises:
            ModelNotFoundError: A part of it is missing.
            ModelFormatError: A part of it is not what diffusers wrote.
        """
        with torch.random.fork_rng(devices=[]):  # diffusers draws weights before it reads them
            parts = load_parts(
                model,
                revision=revision,
                torch_dtype=torch_dtype,
                local_files_only=local_files_only,
                allow_bin=allow_bin,
            )
        return cls(*parts, device)

    def __repr__(self) -> str:
        return (
            f"LatentDiffusion(num_classes={self.num_classes}, latent_shape={self.latent_shape}, "
            f"device='{self.device}')"
        )

    @property
    def inversion_fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name what inverts images: encoder, transformer, noise schedule.

        The VAE's decoder has no part in it, so one that is trained on asks for no new inversion.
        """
        digest = hashlib.sha256()
        for part in (self.transformer, self.vae):
            config = {key: value for key, value in part.config.items() if not key.startswith("_")}
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
            for name, tensor in sorted(part.state_dict().items()):
                if name.startswith(("decoder.", "post_quant_conv.")):
                    continue
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digest.update(self.scheduler.alphas_cumprod.numpy().tobytes())
        digest.update(str(self.scheduler.config.prediction_type).encode())
        return digest.hexdigest()[:16]

    @property
    def num_classes(self) -> int:
        """Number of classes the transformer knows, without the null class."""
        return int(self.transformer.config.num_embeds_ada_norm)

    @property
    def null_class_label(self) -> int:
        """The label of no class: diffusers' `LabelEmbedding` keeps it behind the last class."""
        return self.num_classes

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        side = int(self.transformer.config.sample_size)
        return int(self.transformer.config.in_channels), side, side

    @property
    def sample_size(self) -> int:
        """Side in pixels of the images the VAE takes and makes for `latent_shape`."""
        return self.latent_shape[1] << (len(self.vae.config.block_out_channels) - 1)

    @property
    def image_channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return int(self.vae.config.out_channels)

    def compile(self) -> None:
        """Compile the transformer with `torch.compile`: slow at its first batch, faster at all others.

        Raises:
            ConfigError: The device is the CPU, for which a C++ compiler is needed, and there is none.
        """
        check_compiler(self.device.type)
        self.transformer.compile()

    @neutral(full_float32=True)
    def encode(self, images: torch.Tensor, generators: list[torch.Generator] | None = None) -> torch.Tensor:
        """Encode images.

        Args:
            images: (B, C, S, S) float in [-1, 1], S = `sample_size`.
            generators: Draw from the VAE's posterior, each image with its own; None takes the mean.

        Returns:
            (B, *latent_shape) float32: VAE latents x scaling factor.

        Raises:
            ModelFormatError: The images have another shape.
        """
        expected = (self.image_channels, self.sample_size, self.sample_size)
        if tuple(images.shape[1:]) != expected:
            raise ModelFormatError(f"images are {tuple(images.shape[1:])}, the VAE takes {expected}")
        posterior = self.vae.encode(images.to(self.device, self.vae.dtype)).latent_dist
        latents = posterior.mean if generators is None else posterior.sample(generators)
        return self._scale(latents.float())

    @neutral(full_float32=True)
    def decode(self, latents: torch.Tensor, batch_size: int = CHUNK) -> torch.Tensor:
        """Decode latents.

        Args:
            latents: (B, *latent_shape), VAE latents x scaling factor.
            batch_size: Latents that are in the model at a time.

        Returns:
            (B, C, S, S) float32 in [-1, 1].
        """
        self._check(latents)
        images = [
            self.vae.decode(self._unscale(chunk).to(self.device, self.vae.dtype)).sample.float().clamp(-1, 1)
            for chunk in latents.split(batch_size)
        ]
        return torch.cat(images)

    @neutral(full_float32=True)
    def invert(
        self, latents: torch.Tensor, class_labels: torch.Tensor, config: InversionConfig
    ) -> dict[int, torch.Tensor]:
        """Return `ddim.invert_latents` of (B, *latent_shape) and (B,), on this model."""
        self._check(latents)
        return invert_latents(
            self.transformer,
            self.scheduler,
            latents.to(self.device),
            class_labels.to(self.device),
            config,
            self.null_class_label,
        )

    @neutral(full_float32=True)
    def denoise(
        self,
        inverted_latents: torch.Tensor,
        class_labels: torch.Tensor,
        config: DecodeConfig,
        batch_size: int = CHUNK,
    ) -> torch.Tensor:
        """Return clean latents (B, *latent_shape) of inverted ones; see `ddim.denoise_latents`.

        `batch_size` of them are in the model at a time. With `config.reference_off_by_one` the latents are
        taken to be one grid step noisier than they are, and with `config.reference_last_step` the last steps
        end at timestep 1.
        """
        self._check(inverted_latents)
        lowest = min(1, len(self.scheduler.alphas_cumprod) - 1) if config.reference_last_step else CLEAN
        timestep = config.timestep
        if config.reference_off_by_one:
            num_train_timesteps = len(self.scheduler.alphas_cumprod)
            check_on_grid(timestep, config.num_inference_steps, num_train_timesteps)
            grid = timestep_grid(config.num_inference_steps, num_train_timesteps)
            if timestep == grid[-1]:
                raise ConfigError(
                    f"timestep {timestep} is the last of the grid: nothing is one step above it"
                )
            timestep = grid[grid.index(timestep) + 1]
        chunks = [
            denoise_latents(
                self.transformer,
                self.scheduler,
                latents.to(self.device),
                labels.to(self.device),
                timestep,
                config.num_inference_steps,
                config.guidance_scale,
                self.null_class_label,
                lowest,
            )
            for latents, labels in zip(
                inverted_latents.split(batch_size), class_labels.split(batch_size), strict=True
            )
        ]
        return torch.cat(chunks)

    def _check(self, latents: torch.Tensor) -> None:
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ModelFormatError(
                f"latents are {tuple(latents.shape[1:])}, the model's are {self.latent_shape}"
            )

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def _scale(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents - self._shift) * float(self.vae.config.scaling_factor)

    def _unscale(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / float(self.vae.config.scaling_factor) + self._shift
