"""The noise schedule of a model: times -> shares of signal and noise, x_t = signal * x_0 + noise * eps.

In: diffusers' scheduler of the model, made from its own configuration. Out: the level of noise at a time, the
grid of times that a walk stops at, and what the network's output means there. Two schedules are known:

    schedule        time              signal               noise
    BetaSchedule    timestep (int)    sqrt(alpha_bar_t)    sqrt(1 - alpha_bar_t)
    FlowSchedule    sigma in (0, 1)   1 - sigma            sigma

`CLEAN` stands for latents without noise in both.
"""

from __future__ import annotations

import bisect
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from d3hr_datasets.config.timesteps import CLEAN, GridKind, check_on_grid, check_time, timestep_grid
from d3hr_datasets.errors import ConfigError, ModelFormatError

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

PredictionType = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]
BETA_PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "v_prediction", "sample")

# Of flow matching: what gives sigmas another meaning than a shift does.
UNUSUAL = ("invert_sigmas", "shift_terminal", *(f"use_{x}_sigmas" for x in ("karras", "exponential", "beta")))


@dataclass(frozen=True)
class NoiseLevel:
    """How much of an image and how much noise latents consist of: x = signal * x_0 + noise * eps.

    Args:
        signal: Factor of the clean latents, from 0 to 1.
        noise: Factor of the noise, from 0 to 1.
    """

    signal: float
    noise: float


class NoiseSchedule(ABC):
    """What a walk has to know of a model's schedule.

    Attributes:
        grid_kind: What `InversionConfig.grid` says of artifacts of this model.
        prediction_type: What the network's output means.
        num_train_timesteps: Timesteps the model was trained with.
        shift: Of a flow schedule's sigmas; None of another.
    """

    grid_kind: GridKind
    prediction_type: PredictionType
    num_train_timesteps: int
    shift: float | None = None

    @abstractmethod
    def level(self, time: float) -> NoiseLevel:
        """Return the level of noise at a time."""

    @abstractmethod
    def model_time(self, time: float) -> float:
        """Return what the network is told where latents are at a time."""

    @abstractmethod
    def scheduler_times(self, num_inference_steps: int) -> tuple[float, ...]:
        """Return the ascending times of diffusers' scheduler for so many steps, without the clean end."""

    @abstractmethod
    def fingerprint_bytes(self) -> bytes:
        """Return what tells this schedule from another one."""

    @abstractmethod
    def check(self) -> None:
        """Check what a configuration may say and a walk cannot use.

        Raises:
            ModelFormatError: The model predicts something else, or noise does not grow with time.
        """

    def path(
        self, time: float, num_inference_steps: int, grid: GridKind, first: float = CLEAN
    ) -> tuple[float, ...]:
        """Return the ascending times of a walk: `first`, those of the grid in between, and `time`.

        Args:
            time: Where the walk up ends, and the walk down begins.
            num_inference_steps: Steps of the whole grid.
            grid: Which grid; "ddim" has its own times, the others those of diffusers' scheduler.
            first: The other end.

        Raises:
            ConfigError: The model has no such grid, or no such time; at the time there is noise alone.
        """
        if (grid == "flow") != (self.grid_kind == "flow"):
            raise ConfigError(
                f"the settings are of the grid {grid!r}, and the model's is {self.grid_kind!r}; give "
                f"settings with grid={self.grid_kind!r}, or the model that they are of"
            )
        if grid == "ddim":
            check_on_grid(time, num_inference_steps, self.num_train_timesteps)
            times: Sequence[float] = timestep_grid(num_inference_steps, self.num_train_timesteps)
        else:
            check_time(time, grid, self.num_train_timesteps)
            times = (CLEAN, *self.scheduler_times(num_inference_steps))
        if self.level(time).signal == 0:
            raise ConfigError(
                f"at time {time} there is noise alone, and nothing of an image; give a lower one"
            )
        between = times[bisect.bisect_right(times, first) : bisect.bisect_left(times, time)]
        return (first, *between, time) if time > first else (time,)

    def default_time(self, num_inference_steps: int) -> float:
        """Return the time that the paper keeps statistics of: timestep 600 of 1000, or the nearest."""
        if self.grid_kind == "flow":
            return 0.6
        wanted = 0.6 * self.num_train_timesteps
        return min(self.scheduler_times(num_inference_steps), key=lambda time: abs(time - wanted))


class BetaSchedule(NoiseSchedule):
    """The schedule of a model that was trained on a schedule of betas.

    Args:
        scheduler: Made of the configuration of the model's scheduler, whatever its class.
    """

    def __init__(self, scheduler: DDIMScheduler) -> None:
        if scheduler.config.timestep_spacing == "linspace":
            # DDIMScheduler steps to t - 1000 // n, whatever the spacing: off the grid of "linspace".
            scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing="leading")
        self.scheduler = scheduler
        self.prediction_type = scheduler.config.prediction_type
        self.num_train_timesteps = len(scheduler.alphas_cumprod)
        is_ddim = scheduler.config.timestep_spacing == "leading" and scheduler.config.steps_offset == 0
        self.grid_kind = "ddim" if is_ddim else "scheduler"

    def level(self, time: float) -> NoiseLevel:
        """Return the level at a timestep; that of the clean end is the scheduler's own (no noise for DiT)."""
        scheduler = self.scheduler
        alpha = float(scheduler.final_alpha_cumprod if time == CLEAN else scheduler.alphas_cumprod[int(time)])
        return NoiseLevel(math.sqrt(alpha), math.sqrt(1 - alpha))

    def model_time(self, time: float) -> float:
        """Return the timestep; the clean end is asked for at 0."""
        return max(int(time), 0)

    def scheduler_times(self, num_inference_steps: int) -> tuple[float, ...]:
        """Return the timesteps of diffusers' `DDIMScheduler`."""
        if num_inference_steps > self.num_train_timesteps:
            raise ConfigError(
                f"num_inference_steps must be at most num_train_timesteps = {self.num_train_timesteps}, "
                f"not {num_inference_steps}"
            )
        self.scheduler.set_timesteps(num_inference_steps)
        return tuple(self.scheduler.timesteps.flip(0).tolist())

    def fingerprint_bytes(self) -> bytes:
        """Return the shares of signal and the kind of prediction; of a grid of its own, where it lies."""
        config, last = self.scheduler.config, float(self.scheduler.final_alpha_cumprod)
        found: bytes = self.scheduler.alphas_cumprod.numpy().tobytes() + str(self.prediction_type).encode()
        if self.grid_kind != "ddim" or last != 1:  # others have the fingerprints that they always had
            found += json.dumps([config.timestep_spacing, config.steps_offset, last]).encode()
        return found

    def check(self) -> None:
        """Check the prediction, and that the share of noise grows."""
        if self.prediction_type not in BETA_PREDICTIONS:
            raise ModelFormatError(
                f"the scheduler says the model predicts {self.prediction_type!r}; accepted: "
                f"{list(BETA_PREDICTIONS)}, and 'flow_prediction' with a scheduler of flow matching"
            )
        shares = self.scheduler.alphas_cumprod
        is_share = shares.dim() == 1 and len(shares) > 0 and bool(((shares >= 0) & (shares <= 1)).all())
        falls = is_share and bool((shares.diff() <= 0).all()) and bool(shares[-1] < shares[0])
        if not (falls and shares[0] > 0):
            raise ModelFormatError(
                "the scheduler's betas do not make a share of noise that grows from 0 towards 1; betas lie "
                "between 0 and 1: see beta_start, beta_end, beta_schedule and trained_betas"
            )


class FlowSchedule(NoiseSchedule):
    """The schedule of a flow-matching model, whose output is the velocity eps - x_0.

    Args:
        scheduler: Made of the configuration of the model's scheduler, whatever its class.
        num_tokens: Tokens of an image, by which some schedulers shift their sigmas.
        linear_sigmas: Whether the model's pipeline spaces sigmas from 1 to 1/n itself, before the shift.
    """

    grid_kind = "flow"
    prediction_type: PredictionType = "flow_prediction"

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        num_tokens: int = 256,
        linear_sigmas: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self._linear_sigmas = linear_sigmas
        self.num_train_timesteps = int(scheduler.config.num_train_timesteps)
        self._mu = _mu(scheduler.config, num_tokens) if scheduler.config.use_dynamic_shifting else None
        if self._mu is None:
            self.shift = float(scheduler.shift)
        elif scheduler.config.time_shift_type == "exponential":
            self.shift = math.exp(self._mu)
        else:
            self.shift = self._mu

    def level(self, time: float) -> NoiseLevel:
        """Return the level at a sigma."""
        sigma = 0.0 if time == CLEAN else time
        return NoiseLevel(1 - sigma, sigma)

    def model_time(self, time: float) -> float:
        """Return sigma times the number of timesteps."""
        return self.level(time).noise * self.num_train_timesteps

    def scheduler_times(self, num_inference_steps: int) -> tuple[float, ...]:
        """Return the sigmas of diffusers' `FlowMatchEulerDiscreteScheduler`."""
        options: dict[str, Any] = {} if self._mu is None else {"mu": self._mu}
        if self._linear_sigmas:
            options["sigmas"] = torch.linspace(1, 1 / num_inference_steps, num_inference_steps).tolist()
        self.scheduler.set_timesteps(num_inference_steps, **options)
        return tuple(self.scheduler.sigmas[:-1].flip(0).tolist())

    def fingerprint_bytes(self) -> bytes:
        """Return the kind of prediction, the shift, the timesteps, and a grid."""
        times = self.scheduler_times(min(10, self.num_train_timesteps))
        return json.dumps([self.prediction_type, self.shift, self.num_train_timesteps, times]).encode()

    def check(self) -> None:
        """Check that a time means what it says, and that sigmas grow."""
        unusual = [name for name in UNUSUAL if self.scheduler.config.get(name)]
        if unusual:
            raise ModelFormatError(
                f"the scheduler sets {unusual}, which changes what a time means; accepted: a shift alone"
            )
        try:
            sigmas = torch.tensor(self.scheduler_times(min(10, self.num_train_timesteps)))
            grows = bool((sigmas > 0).all() and (sigmas <= 1).all() and (sigmas.diff() > 0).all())
        except (ValueError, ZeroDivisionError, OverflowError):
            grows = False
        if not (grows and self.num_train_timesteps >= 1 and math.isfinite(self.shift or 0)):
            raise ModelFormatError(
                f"the scheduler's sigmas do not grow from 0 towards 1: shift = {self.shift!r:.40} and "
                f"num_train_timesteps = {self.num_train_timesteps!r:.40}; accepted: positive numbers"
            )


def _mu(config: Any, num_tokens: int) -> float:
    """Return the logarithm of the shift, as `calculate_shift` of diffusers, which needs transformers."""
    span = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return float(config.base_shift + span * (num_tokens - config.base_image_seq_len))


def open_schedule(
    config: dict[str, Any], num_tokens: int = 256, linear_sigmas: bool = False
) -> NoiseSchedule:
    """Return the schedule that a scheduler's configuration describes.

    Args:
        config: The contents of `scheduler_config.json`.
        num_tokens: Tokens of an image, where the schedule depends on them.
        linear_sigmas: As `FlowSchedule`.

    Raises:
        ModelFormatError: It describes neither betas nor flow matching, or not a growing share of noise.
    """
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    # It is not in files, and would have values replaced that are defaults of another class.
    config = {key: value for key, value in config.items() if key != "_use_default_values"}
    name = str(config.get("_class_name", "DDIMScheduler"))
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas"):
        if "flow_shift" in config:  # the name of DPM-Solver and UniPC
            config = {**config, "shift": config["flow_shift"]}
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        schedule: NoiseSchedule = FlowSchedule(scheduler, num_tokens, linear_sigmas)
    elif name != "DDIMScheduler" and "beta_schedule" not in config:
        raise ModelFormatError(
            f"the scheduler is {name}, which has neither a schedule of betas nor one of flow matching (EDM "
            "has neither); accepted are DDIMScheduler and those that share its betas (DDPMScheduler, "
            "EulerDiscreteScheduler, ...), and those of flow matching (FlowMatchEulerDiscreteScheduler, ...)"
        )
    else:
        schedule = BetaSchedule(DDIMScheduler.from_config(config))
    schedule.check()
    return schedule
