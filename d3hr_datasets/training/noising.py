"""How latents are noised in training: a schedule -> times that are drawn, levels, weights, and targets."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from d3hr_datasets.diffusion.noise_schedule import BetaSchedule, FlowSchedule, NoiseSchedule
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.training.settings import DiffusionTraining


class Noising(ABC):
    """How latents are noised in training, and what the network is then to say.

    Args:
        schedule: Of the model.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    @abstractmethod
    def draw_times(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return what a batch is noised to, (B,): timesteps or sigmas."""

    @abstractmethod
    def level(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shares of signal and noise (B, 1, 1, 1)."""

    @abstractmethod
    def model_times(self, times: torch.Tensor) -> torch.Tensor:
        """Return what the network is told of times (B,)."""

    @abstractmethod
    def weights(self, times: torch.Tensor) -> torch.Tensor:
        """Return how much the error at each time counts, (B,)."""

    def target(
        self, latents: torch.Tensor, noise: torch.Tensor, signal: torch.Tensor, share: torch.Tensor
    ) -> torch.Tensor:
        """Return what the network is to predict."""
        kind = self.schedule.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return signal * noise - share * latents
        if kind == "flow_prediction":
            return noise - latents
        return latents


class BetaNoising(Noising):
    """Timesteps of a schedule of betas, all as likely.

    Source: Min-SNR (arXiv 2303.09556); for v, section 4.
    """

    def __init__(self, schedule: BetaSchedule, snr_gamma: float) -> None:
        super().__init__(schedule)
        alphas: torch.Tensor = schedule.scheduler.alphas_cumprod
        self.alphas_cumprod = alphas
        snr = alphas / (1 - alphas)
        clamped = snr.clamp(max=snr_gamma)
        if schedule.prediction_type == "epsilon":
            self._weights = torch.where(snr > 0, clamped / snr, torch.ones(()))
        elif schedule.prediction_type == "v_prediction":
            self._weights = clamped / (snr + 1)
        else:
            self._weights = clamped

    def draw_times(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return timesteps, int64."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def level(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar)."""
        alpha = self.alphas_cumprod[times].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def model_times(self, times: torch.Tensor) -> torch.Tensor:
        """Return the timesteps."""
        return times

    def weights(self, times: torch.Tensor) -> torch.Tensor:
        """Return the weights of Min-SNR."""
        return self._weights[times]


class FlowNoising(Noising):
    """Shares of noise of flow matching, drawn and then shifted as the model's schedule is.

    Source: Stable Diffusion 3 (arXiv 2403.03206), section 3.1; the shift, section 5.3.2.
    """

    def __init__(self, schedule: FlowSchedule, sigmas: str) -> None:
        super().__init__(schedule)
        self._uniform = sigmas == "uniform"
        self._shift = 1.0 if schedule.shift is None else schedule.shift

    def draw_times(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return sigmas between 0 and 1, float32."""
        if self._uniform:
            sigmas = torch.rand(count, generator=generator)
        else:
            sigmas = torch.randn(count, generator=generator).sigmoid()
        return self._shift * sigmas / (1 + (self._shift - 1) * sigmas)

    def level(self, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 1 - sigma and sigma."""
        sigmas = times.view(-1, 1, 1, 1)
        return 1 - sigmas, sigmas

    def model_times(self, times: torch.Tensor) -> torch.Tensor:
        """Return sigma times the number of timesteps."""
        return times * self.schedule.num_train_timesteps

    def weights(self, times: torch.Tensor) -> torch.Tensor:
        """Return ones."""
        return torch.ones_like(times)


def noising_of(schedule: NoiseSchedule, settings: DiffusionTraining) -> Noising:
    """Return how latents are noised for a model.

    Raises:
        ConfigError: The settings name an objective that is not the model's.
    """
    name = "flow" if isinstance(schedule, FlowSchedule) else "min_snr"
    if settings.objective not in (None, name):
        raise ConfigError(
            f"objective = {settings.objective!r} is not what the base model was trained for; its schedule "
            f"asks for {name!r}: leave it out"
        )
    if isinstance(schedule, FlowSchedule):
        return FlowNoising(schedule, settings.sigmas)
    assert isinstance(schedule, BetaSchedule)
    return BetaNoising(schedule, settings.snr_gamma)
