"""A transformer that answers with a function, and what walks latents with it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.diffusion.conditioning import ClassLabels
from d3hr_datasets.diffusion.denoiser import Denoiser
from d3hr_datasets.diffusion.inversion import invert_latents
from d3hr_datasets.diffusion.kinds.table import DIT
from d3hr_datasets.diffusion.noise_schedule import BetaSchedule, NoiseLevel
from d3hr_datasets.diffusion.solver import denoise_latents, predict_noise

NULL = 7

SHAPE = (2, 3, 4, 4)

LABELS = torch.tensor([1, 5])

Answer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class FakeTransformer:
    """Answers with a function of (latents, timesteps, labels), and notes what it was asked."""

    def __init__(self, answer: Answer, dtype: torch.dtype = torch.float32) -> None:
        self.answer = answer
        self.dtype = dtype
        self.timesteps: list[int] = []
        self.labels: list[list[int]] = []
        self.dtypes: set[torch.dtype] = set()

    def __call__(
        self, hidden_states: torch.Tensor, *, timestep: torch.Tensor, class_labels: torch.Tensor
    ) -> Any:
        assert timestep.shape == class_labels.shape == hidden_states.shape[:1]
        assert timestep.dtype == class_labels.dtype == torch.int64
        assert (timestep == timestep[0]).all()
        self.timesteps.append(int(timestep[0]))
        self.labels.append(class_labels.tolist())
        self.dtypes.add(hidden_states.dtype)
        return SimpleNamespace(sample=self.answer(hidden_states, timestep, class_labels))


def ddim_scheduler(prediction_type: str = "epsilon", **options: Any) -> Any:
    return DDIMScheduler(
        beta_schedule="linear", clip_sample=False, prediction_type=prediction_type, **options
    )


def seeded_latents(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def as_column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1).float()


def zero(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(latents)


def label_as_noise(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Answer with the class label itself."""
    return as_column(labels).expand_as(latents)


def wavy(latents: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Answer with something that depends on every input, as a model does."""
    return torch.sin(3 * latents + as_column(timesteps) / 100 + as_column(labels)).to(latents.dtype)


def denoiser(transformer: Any, scheduler: Any) -> Denoiser:
    return Denoiser(transformer, DIT, ClassLabels(NULL), BetaSchedule(scheduler), 8)


def noise_of(
    transformer: Any,
    scheduler: Any,
    guidance_scale: float = 1.0,
    level: NoiseLevel | None = None,
    timestep: int = 600,
) -> torch.Tensor:
    """Return the noise that a transformer predicts in `seeded_latents` of `LABELS`."""
    model = denoiser(transformer, scheduler)
    return predict_noise(model, seeded_latents(), timestep, LABELS, guidance_scale, level)


def invert(
    transformer: Any, scheduler: Any, latents: torch.Tensor, **options: Any
) -> dict[float, torch.Tensor]:
    return invert_latents(denoiser(transformer, scheduler), latents, LABELS, InversionConfig(**options))


def denoise(
    transformer: Any, scheduler: Any, latents: torch.Tensor, timestep: int = 600, guidance_scale: float = 1.0
) -> torch.Tensor:
    config = DecodeConfig(timestep, 50, guidance_scale)
    return denoise_latents(denoiser(transformer, scheduler), latents, LABELS, config)
