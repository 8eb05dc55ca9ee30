"""The latent diffusion model: images <-> latents <-> inverted latents.

It puts together what others know: `pixel_range` pixels, `latent_scale` scaling factors, `placement` devices,
`conditioning` what a class is to a model, `kinds` how diffusers' networks are called, `loading` models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.adapters import apply_adapter, check_base, read_description
from d3hr_datasets.diffusion.conditioning import ClassLabels, Conditioning
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.earlier_names import EarlierNames
from d3hr_datasets.diffusion.fingerprint import inversion_fingerprint
from d3hr_datasets.diffusion.inversion import invert_latents
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.kinds.table import DIT
from d3hr_datasets.diffusion.latent_scale import scale_latents, unscale_latents
from d3hr_datasets.diffusion.loading import check_parts, load_parts, vae_halvings
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule, open_schedule
from d3hr_datasets.diffusion.placement import Placement
from d3hr_datasets.diffusion.prompts import prompts_of
from d3hr_datasets.diffusion.recorded_sizes import RecordedSizes
from d3hr_datasets.diffusion.solver import denoise_latents, forward_passes
from d3hr_datasets.errors import ConfigError, ModelFormatError
from d3hr_datasets.numerics.devices import best_device_type
from d3hr_datasets.numerics.second_stream import SecondStream, to_device
from d3hr_datasets.numerics.torch_settings import neutral

# Latents, or images, in the model at a time unless told otherwise: memory does not grow with groups.
CHUNK = BATCH_SIZE


class LatentDiffusion(EarlierNames):
    """A latent diffusion model of diffusers, ready for inversion and denoising.

    What it computes depends on the precision of the model alone, not on the caller's autocast, default dtype,
    default device, gradient mode, or leave to use TF32 (`numerics.torch_settings`).

    Args:
        network: diffusers' transformer or UNet.
        vae: Encodes and decodes images.
        schedule: The noise schedule, or diffusers' scheduler that has it.
        device: Where to run; CUDA if there is one, else MPS, else the CPU.
        kind: Of the model; a DiT by default.
        conditioning: What it is told of classes; by default the labels that a DiT was trained with.
        cpu_offload: Have network and VAE take turns on a device that is too small for both: slower.

    Attributes:
        second_stream: Where batches are decoded while the next one is denoised, on CUDA.

    Raises:
        ModelFormatError: Network, VAE and schedule are not of a kind this library can use, or do not fit each
            other.
        ConfigError: PyTorch knows or finds no such device, its memory is too small, or a model of prompts is
            given none.
    """

    @neutral()
    def __init__(
        self,
        network: Any,
        vae: Any,
        schedule: NoiseSchedule | Any,
        device: torch.device | str | None = None,
        *,
        kind: ModelKind = DIT,
        conditioning: Conditioning | None = None,
        cpu_offload: bool = False,
    ) -> None:
        check_parts(kind, network, vae)
        if not isinstance(schedule, NoiseSchedule):
            config = {"_class_name": type(schedule).__name__, **schedule.config}
            schedule = open_schedule(config, kind.num_tokens(network), kind.linear_sigmas)
        if conditioning is None:
            if kind.takes_prompts:
                raise ConfigError(
                    f"a model of {kind.name} takes a prompt for each class; give some: --prompt 'a photo of "
                    "a {name}', or from_pretrained(..., prompts={0: '...', ...})"
                )
            conditioning = ClassLabels(int(network.config.num_embeds_ada_norm))
        self.placement = Placement(network, vae, device, cpu_offload)
        self.device = self.placement.device
        self.second_stream = SecondStream(None if self.placement.is_offloaded else self.device)
        self.kind = kind
        self.network = network.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.schedule = schedule
        self.conditioning = conditioning
        self.denoiser = Denoiser(self.network, kind, conditioning, schedule, self.sample_size)

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
        prompts: Mapping[int, str] | None = None,
        negative_prompt: str | None = None,
        num_classes: int | None = None,
        conditioning: Conditioning | None = None,
        adapter: str | Path | None = None,
        cpu_offload: bool = False,
    ) -> LatentDiffusion:
        """Load a model in diffusers' layout.

        Args:
            model: A folder with the parts of a kind (`transformer/` or `unet/`, `vae/`, `scheduler/`, and
                what reads prompts), or "ORG/NAME" on the Hub.
            revision: Commit of the Hub repository. A folder has none.
            device: Where to run.
            torch_dtype: Precision of network and VAE; a step's own arithmetic is always float32.
            local_files_only: Do not ask the Hub.
            allow_bin: Also load .bin weights of a folder, with `weights_only` and a warning (as those of a
                repository that has no others).
            prompts: By class label, for a model that takes some; read here, by encoders that are released.
            negative_prompt: To guide by; None for what the model's pipeline takes then.
            num_classes: Where there are more classes than `prompts`.
            conditioning: What was made of prompts before, instead of them.
            adapter: Folder of an adapter of this model, merged into its weights.
            cpu_offload: Have network and VAE take turns on the device.

        Raises:
            ModelNotFoundError: A part of it is missing.
            ModelFormatError: A part of it is not what diffusers wrote, or it is of no kind that is known.
            ConfigError: It takes class labels, and prompts are given; or the other way round.
            MissingExtraError: What reads its prompts is not installed.
        """
        with torch.random.fork_rng(devices=[]):  # diffusers draws weights before it reads them
            parts = load_parts(
                model,
                revision=revision,
                torch_dtype=torch_dtype,
                local_files_only=local_files_only,
                allow_bin=allow_bin,
                with_encoders=prompts is not None,
            )
            encoder_device = best_device_type() if device is None else device
            conditioning = prompts_of(
                parts, prompts, negative_prompt, num_classes, conditioning, encoder_device
            )
            network = parts.network
            if adapter is not None:
                repo_id = None if parts.folder == Path(model) else str(model)
                check_base(read_description(Path(adapter)), parts.folder, parts.kind, repo_id, revision)
                network = apply_adapter(network, Path(adapter))
        how: dict[str, Any] = {"kind": parts.kind, "conditioning": conditioning, "cpu_offload": cpu_offload}
        return cls(network, parts.vae, parts.schedule, device, **how)

    def __repr__(self) -> str:
        return (
            f"LatentDiffusion(num_classes={self.num_classes}, latent_shape={self.latent_shape}, "
            f"device='{self.device}')"
        )

    @property
    def inversion_fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name what inverts images: encoder, network, prompts, schedule.

        The VAE's decoder has no part in it, so one that is trained on asks for no new inversion.
        """
        return inversion_fingerprint(self.network, self.vae, self.schedule, self.conditioning)

    @property
    def num_classes(self) -> int:
        """Number of classes, without that of no class."""
        return self.conditioning.num_classes

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        return self.kind.latent_shape(self.network)

    @property
    def sample_size(self) -> int:
        """Side in pixels of the images the VAE takes and makes for `latent_shape`."""
        return self.latent_shape[1] << vae_halvings(self.vae)

    @property
    def image_channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return int(self.vae.config.get("out_channels") or self.vae.config.in_channels)

    def compile(self, cuda_graphs: bool = True) -> None:
        """Compile the network with `torch.compile`: slow at its first batch, faster at those of any size.

        Args:
            cuda_graphs: On CUDA, also record what it asks the GPU for, of each size of a batch
                (`mode="reduce-overhead"`). Not where parts take turns on the device: their weights move.

        Raises:
            ConfigError: The device is the CPU, for which a C++ compiler is needed, and there is none.
        """
        check_compiler(self.device.type)
        recorded = cuda_graphs and self.placement.has_cuda_graphs
        self.network.compile(**({"mode": "reduce-overhead"} if recorded else {}))
        self.denoiser.is_compiled = True
        self.denoiser.recorded = RecordedSizes() if recorded else None

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
        self.placement.use(self.vae)
        encoded = self.vae.encode(images.to(self.device, self.vae.dtype))
        if hasattr(encoded, "latent"):  # a VAE without a posterior, of deep compression
            return scale_latents(encoded.latent.float(), self.vae.config)
        posterior = encoded.latent_dist
        latents = posterior.mean if generators is None else posterior.sample(generators)
        return scale_latents(latents.float(), self.vae.config)

    @neutral(grad=None, full_float32=True)
    def decode(self, latents: torch.Tensor, batch_size: int = CHUNK) -> torch.Tensor:
        """Decode latents.

        Args:
            latents: (B, *latent_shape), VAE latents x scaling factor.
            batch_size: Latents that are in the model at a time.

        Returns:
            (B, C, S, S) float32 in [-1, 1]; in the host's memory where parts take turns on the device.
        """
        self._check(latents)
        self.placement.use(self.vae)
        images = []
        for chunk in latents.split(batch_size):
            taken = unscale_latents(chunk, self.vae.config).to(self.device, self.vae.dtype)
            images.append(self.vae.decode(taken).sample.float().clamp(-1, 1).to(self.placement.rest))
        return torch.cat(images)

    @neutral(full_float32=True)
    def invert(
        self, latents: torch.Tensor, class_labels: torch.Tensor, config: InversionConfig
    ) -> dict[float, torch.Tensor]:
        """Return `inversion.invert_latents` of (B, *latent_shape) and (B,), on this model."""
        self._check(latents)
        self.placement.use(self.network)
        return invert_latents(self.denoiser, latents.to(self.device), class_labels.to(self.device), config)

    @neutral(grad=None, full_float32=True)
    def denoise(
        self,
        inverted_latents: torch.Tensor,
        class_labels: torch.Tensor,
        config: DecodeConfig,
        batch_size: int = CHUNK,
    ) -> torch.Tensor:
        """Return clean latents (B, *latent_shape) of inverted ones; see `solver.denoise_latents`.

        `batch_size` of them are in the model at a time. With `config.reference_off_by_one` the latents are
        taken to be one grid step noisier than they are, and with `config.reference_last_step` the last steps
        end at timestep 1.
        """
        self._check(inverted_latents)
        self.placement.use(self.network)
        chunks = []
        for pair in zip(inverted_latents.split(batch_size), class_labels.split(batch_size), strict=True):
            latents, labels = (to_device(part, self.device) for part in pair)
            chunks.append(denoise_latents(self.denoiser, latents, labels, config))
        return torch.cat(chunks)

    def forward_passes(self, config: DecodeConfig) -> int:
        """Return how often the network runs to make an image with such settings; guidance takes two passes.

        Raises:
            ConfigError: They are none of this model's, as `denoise` says, too.
        """
        return forward_passes(self.denoiser, config)

    def _check(self, latents: torch.Tensor) -> None:
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ModelFormatError(
                f"latents are {tuple(latents.shape[1:])}, the model's are {self.latent_shape}"
            )
