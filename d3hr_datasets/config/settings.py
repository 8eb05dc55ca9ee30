"""Settings of every stage as frozen dataclasses, validated on construction.

A setting's `fingerprint` is stable across processes and versions of Python: it names caches and
artifacts by content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.decode_steps import ADDED, Solver, Spacing, check_counting, check_interval
from d3hr_datasets.config.json_settings import JsonSettings, without_defaults
from d3hr_datasets.config.timesteps import CLEAN, GridKind, check_on_grid, check_time
from d3hr_datasets.errors import ConfigError

GroupSamplingMethod = Literal["moment_matched", "search", "modes", "curated"]
InversionMethod = Literal["ddim", "fixed_point", "adams"]
NoiseTimestep = Literal["source", "target"]
PosteriorLatent = Literal["mean", "sample"]
Resizing = Literal["bicubic", "bilinear"]
MAX_IPC = 100_000  # images per class of a set; the names of their files have five digits


def _set_number(config: Any, name: str) -> None:
    """Check a number of at least 0 and keep it as a float, so that 4 and 4.0 have one fingerprint."""
    object.__setattr__(config, name, check_number(name, getattr(config, name), 0.0))


@dataclass(frozen=True)
class InversionConfig(JsonSettings):
    """How images were turned into inverted latents.

    Args:
        timesteps: Times whose statistics are kept: on a grid of "ddim" timesteps of it, of "flow" sigmas.
        num_inference_steps: Steps of the whole grid; 50 as in the paper. A walk makes those from the clean
            end to a time, where `num_steps` says nothing else.
        num_train_timesteps: Timesteps the model was trained with.
        guidance_scale: Classifier-free guidance while inverting. 1 (none) by default: inversion with
            guidance is not undone by denoising, since the guided field differs between the two points
            of a step. The reference uses 4.
        noise_timestep: Where the model is evaluated in a step from s to t > s: at "source" s (DDIM), or
            at "target" t as in the reference.
        latent: The VAE posterior's "mean", or a "sample" drawn with `seed`. The mean by default: it adds
            no variance of its own. The reference samples without a seed.
        seed: Seed of the posterior samples.
        method: "ddim" as in the paper: a step takes the noise predicted where it starts. "fixed_point": it
            takes the noise predicted where it ends, as the denoising step that undoes it will, found by
            iterating from that of the step before. "adams": of second order, by predictor and corrector
            (Adams-Bashforth-Moulton); one evaluation in a step and one before the first.
        evaluations_per_step: Model evaluations in each step: iterations of "fixed_point", else 1.
        first_timestep: Where VAE latents are taken to be: -1, without noise; 0 as in the reference, whose
            walk has one evaluation fewer.
        resizing: How images of another size were resized: "bicubic", or "bilinear" by Pillow as in the
            reference.
        grid: Which times the model knows, and which of them a walk stops at: see `timesteps.GridKind`.
        shift: Of the sigmas of a "flow" grid, as the model's scheduler has it at the size of its latents.
        num_steps: Steps of the walk to the highest time, counted from the clean end, instead of those of the
            grid. It takes a step more for each lower time that it would not stop at.
        spacing: Where these steps end; see `decode_steps.Spacing`. Near the clean end the noise that a model
            predicts changes fastest, so steps that are closer together there make fewer of them enough.
    """

    timesteps: tuple[float, ...]
    num_inference_steps: int = 50
    num_train_timesteps: int = 1000
    guidance_scale: float = 1.0
    noise_timestep: NoiseTimestep = "source"
    latent: PosteriorLatent = "mean"
    seed: int = 0
    method: InversionMethod = "ddim"
    evaluations_per_step: int = 1
    first_timestep: int = -1
    resizing: Resizing = "bicubic"
    grid: GridKind = "ddim"
    shift: float | None = None
    num_steps: int | None = None
    spacing: Spacing = "uniform"

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, without what later versions added, where it is not used.

        So what was made before there was a choice keeps its fingerprint, and older versions can read it.
        """
        values = super().to_dict()
        if self.method == "ddim":
            del values["method"], values["evaluations_per_step"]
        added = {"grid": "ddim", "shift": None, "num_steps": None, "spacing": "uniform"}
        return without_defaults(values, first_timestep=CLEAN, resizing="bicubic", **added)

    @property
    def needs_format_2(self) -> bool:
        """Whether it says what readers of format 1 do not know."""
        return self.grid != "ddim" or self.method == "adams" or self.num_steps is not None

    def guidance_at(self, time: float) -> float:
        """Return the scale of guidance at a time: the same at all of them."""
        return self.guidance_scale

    def __post_init__(self) -> None:
        check_int("num_train_timesteps", self.num_train_timesteps, 1, 65_536)
        check_int("num_inference_steps", self.num_inference_steps, 1, self.num_train_timesteps)
        _set_number(self, "guidance_scale")
        check_choice("noise_timestep", self.noise_timestep, NoiseTimestep)
        check_choice("latent", self.latent, PosteriorLatent)
        check_choice("method", self.method, InversionMethod)
        check_choice("resizing", self.resizing, Resizing)
        check_int("first_timestep", self.first_timestep, CLEAN, 0)
        check_int("evaluations_per_step", self.evaluations_per_step, 1, 100)
        check_choice("grid", self.grid, GridKind)
        if (self.shift is not None) != (self.grid == "flow"):
            raise ConfigError(
                f"shift={self.shift!r} does not go with grid={self.grid!r}: 'flow' alone has one"
            )
        if self.shift is not None and check_number("shift", self.shift, 0.0) == 0:
            raise ConfigError("shift must be more than 0")
        if self.method != "fixed_point" and self.evaluations_per_step != 1:
            raise ConfigError(
                f"evaluations_per_step must be 1 with method={self.method!r}, not "
                f"{self.evaluations_per_step}; method='fixed_point' takes more"
            )
        if self.method != "ddim" and self.noise_timestep != "source":
            raise ConfigError(
                f"noise_timestep is of the method 'ddim'; {self.method!r} asks for the noise of latents that "
                "are at the timestep asked for: leave it out"
            )
        self._check_counting()
        check_int("seed", self.seed, 0)
        if not isinstance(self.timesteps, tuple) or not self.timesteps:
            raise ConfigError(f"timesteps must be a tuple of at least one timestep, not {self.timesteps!r}")
        if self.grid == "flow":  # -1 and -1.0 are one time, by one name
            times = tuple(check_time(time, self.grid) for time in self.timesteps)
            object.__setattr__(self, "timesteps", times)
        for timestep in self.timesteps:
            if self.grid == "ddim":
                check_on_grid(timestep, self.num_inference_steps, self.num_train_timesteps)
            else:
                check_time(timestep, self.grid, self.num_train_timesteps)
            if timestep < self.first_timestep:
                raise ConfigError(
                    f"timestep {timestep} is before first_timestep {self.first_timestep}, where VAE latents "
                    "are taken to be; leave it out, or start at -1"
                )
        if len(set(self.timesteps)) != len(self.timesteps):
            raise ConfigError(f"timesteps {self.timesteps} has duplicates")

    def _check_counting(self) -> None:
        """Check the steps that are counted from the clean end.

        Raises:
            ConfigError: There are none, or they do not go with the rest.
        """
        check_choice("spacing", self.spacing, Spacing)
        if self.num_steps is not None:
            check_int("num_steps", self.num_steps, 1, self.num_train_timesteps)
            if self.first_timestep != CLEAN:
                raise ConfigError(
                    f"num_steps counts from the clean end, {CLEAN}, and first_timestep is "
                    f"{self.first_timestep}: leave out one of them"
                )
        elif self.spacing != "uniform":
            raise ConfigError(f"spacing={self.spacing!r} is of counted steps: give num_steps, too")


@dataclass(frozen=True)
class GroupSamplingConfig(JsonSettings):
    """How a group of `ipc` latents is drawn from a class Gaussian.

    Args:
        method: "moment_matched" (exact mean and standard deviation, vanishing odd moments), the paper's
            "search" over random groups, "modes" (spread over the modes of each class, for artifacts that
            store them), or "curated" (the first images of a stored order, for artifacts that `d3hr curate`
            has made; nothing else of these settings says anything of them).
        seed: Seed of all draws; class and candidate are mixed into it.
        num_candidates: Groups that "search" compares.
        mean_weight: Weight of ||mean(S) - mu|| in the paper's loss.
        std_weight: Weight of ||std(S) - sigma||.
        skewness_weight: Weight of ||skewness(S)||; 0.5 in the paper, 0.1 in its code.
        mode_spread: Factor on the standard deviation within modes, for "modes". Guidance draws the images
            of a class together, and a group that is a little wider makes up for it; with the embedded
            model students on held-out images did not gain by that.
    """

    method: GroupSamplingMethod = "moment_matched"
    seed: int = 0
    num_candidates: int = 20_000
    mean_weight: float = 1.0
    std_weight: float = 1.0
    skewness_weight: float = 0.5
    mode_spread: float = 1.0

    def __post_init__(self) -> None:
        check_choice("method", self.method, GroupSamplingMethod)
        check_int("seed", self.seed, 0)
        check_int("num_candidates", self.num_candidates, 1)
        for name in ("mean_weight", "std_weight", "skewness_weight", "mode_spread"):
            _set_number(self, name)


@dataclass(frozen=True)
class DecodeConfig(JsonSettings):
    """How inverted latents become images.

    Args:
        timestep: Time the latents are at: one of the artifact's.
        num_inference_steps: Steps of the whole grid, of which those below `timestep` are run; 50 by default.
            None where `num_steps` is given.
        guidance_scale: Classifier-free guidance; 1 is none.
        reference_off_by_one: Start one grid step above `timestep`, as the reference code does: its
            statistics are those of t = 600, its denoising starts at t = 620. Only to reproduce it.
        reference_last_step: Let steps that would go below timestep 1 end there, as the reference code does:
            its images keep the noise of timestep 1. Only to reproduce it.
        grid: As in `InversionConfig`; must be that of the artifact.
        solver: "ddim" as in the paper, of first order (Euler's with flow matching); or of second order and
            multistep, for few steps: "dpm++2m" (DPM-Solver++, arXiv 2211.01095), or "unipc" (UniPC, arXiv
            2302.04867). All make one evaluation of the model in a step, and the last step is DDIM's.
        num_steps: Steps from `timestep` to the clean end, as many as evaluations, instead of those of a grid.
        spacing: Where these steps start: "uniform" in time, "quadratic" or "cubic" (closer together near the
            clean end), or "logsnr", uniform in log(signal / noise).
        guidance_interval: (low, high) in the time that `timestep` is in: guidance is applied where
            low <= time <= high. Elsewhere the conditional model alone is asked, one forward pass instead of
            two (arXiv 2404.07724). None applies it everywhere.
    """

    timestep: float
    num_inference_steps: int | None = None
    guidance_scale: float = 4.0
    reference_off_by_one: bool = False
    reference_last_step: bool = False
    grid: GridKind = "ddim"
    solver: Solver = "ddim"
    num_steps: int | None = None
    spacing: Spacing = "uniform"
    guidance_interval: tuple[float, float] | None = None

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the fields that say what readers of format 1 do not know."""
        return tuple(name for name, default in ADDED.items() if getattr(self, name) != default)

    def guidance_at(self, time: float) -> float:
        """Return the scale of guidance at a time: 1, which is none, outside of the interval."""
        low, high = self.guidance_interval or (time, time)
        return self.guidance_scale if low <= time <= high else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, without what a later version added, where it is not used."""
        earlier = {"num_inference_steps": None, "reference_last_step": False, "grid": "ddim"}
        return without_defaults(super().to_dict(), **earlier, **ADDED)

    def __post_init__(self) -> None:
        check_choice("grid", self.grid, GridKind)
        check_choice("solver", self.solver, Solver)
        if self.grid == "ddim":
            check_int("timestep", self.timestep, CLEAN)
        else:
            object.__setattr__(self, "timestep", check_time(self.timestep, self.grid))
        counting = (self.num_inference_steps, self.num_steps, self.spacing, self.grid)
        object.__setattr__(self, "num_inference_steps", check_counting(self.timestep, *counting))
        _set_number(self, "guidance_scale")
        object.__setattr__(self, "guidance_interval", check_interval(self.guidance_interval, self.grid))
        for name in ("reference_off_by_one", "reference_last_step"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be a bool, not {getattr(self, name)!r}")
            if getattr(self, name) and self.grid != "ddim":
                raise ConfigError(f"{name} is D3HR's own, of the grid 'ddim'; this one is {self.grid!r}")
            if getattr(self, name) and self.added:
                raise ConfigError(
                    f"{name} decodes as D3HR's code does, by DDIM on its grid with guidance everywhere; "
                    f"leave it out, or {', '.join(self.added)}"
                )
