"""What is asked of a build: settings of the artifact and of its classes.

In: values as people give them. Out: settings that are validated, with the defaults of `d3hr build`; those of
inversion and decoding are made of them where the model's schedule is known.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.info_texts import MAX_TEXT
from d3hr_datasets.artifact.tolerance import check_share
from d3hr_datasets.build.given_times import PAPERS_TIMESTEP, check_known_time, check_time
from d3hr_datasets.build.shrinkage_choice import Shrinkage, check_shrinkage
from d3hr_datasets.config.budgets import Budget, complete_budgets
from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.decode_steps import GRID_STEPS, Solver, Spacing
from d3hr_datasets.config.defaults import DECODE_STEPS, INVERSION_STEPS
from d3hr_datasets.config.settings import (
    DecodeConfig,
    InversionConfig,
    InversionMethod,
    NoiseTimestep,
    PosteriorLatent,
)
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text
from d3hr_datasets.io.untrusted_files import read_json_argument
from d3hr_datasets.version import __version__

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule

# What `reference` says itself.
SET_BY_REFERENCE = (
    "num_inference_steps",
    "num_steps",
    "spacing",
    "guidance_scale",
    "method",
    "evaluations_per_step",
    "noise_timestep",
    "latent",
    "num_modes",
    "decode_guidance_scale",
    "decode_solver",
    "decode_num_steps",
    "decode_spacing",
    "decode_guidance_interval",
    "shrinkage",
    "budgets",
)


@dataclass(frozen=True)
class BuildSettings:
    """What is built; where it is None, what fits the model or the images.

    Args:
        timesteps: Times to keep statistics of: timesteps, integers, or of a flow-matching model sigmas,
            floats. By default that of the model's schedule which is nearest to the paper's, 600 of 1000.
        num_inference_steps: Steps of the whole grid, of inversion and decoding. By default neither is on one,
            but with the method "ddim" both are on one of 50, as in the paper.
        num_steps: Steps of inversion to the highest time, instead of those of the grid. By default
            `INVERSION_STEPS` where nothing is said of the grid, but for "ddim", which has it as in the paper.
        spacing: How these are spaced; "cubic" by default.
        guidance_scale: Guidance while inverting, 1 is none; this and the next five as `InversionConfig`.
        method: The more exact inversion, the paper's at the same cost, or one of second order.
        evaluations_per_step: Of the model.
        noise_timestep: Where a step of "ddim" evaluates the model.
        latent: Of the VAE's posterior.
        seed: Seed of posterior samples, and of the images in which modes are sought.
        num_modes: Modes per class; 1 stores none. By default a number that fits the images.
        decode_timestep: Time to decode from; by default the last of `timesteps`.
        decode_guidance_scale: Guidance while decoding.
        decode_solver: How steps of decoding are made; this and the next three as in `DecodeConfig`. By
            default "dpm++2m", and "ddim" on the grid.
        decode_num_steps: Steps from `decode_timestep` down, instead of those of the grid. By default
            `DECODE_STEPS` where nothing is said of the grid.
        decode_spacing: Where these steps start; "quadratic" by default.
        decode_guidance_interval: Times at which guidance is applied; everywhere by default.
        shrinkage: How far variances are drawn towards those that all classes share: "auto" where a class has
            fewer than 100 images, "none", or a share of all classes; see `shrinkage`.
        budgets: Rules for sets of few images per class (`Budget`), or a JSON file of them as `d3hr budgets`
            takes it; what a rule leaves out is as for all sets.
        image_size: Side of the images without their frame; by default what the model was trained on.
        name: Name of the data set; by default that of the artifact's folder.
        license_name: Licence of the images, noted in the artifact.
        reference: Invert and decode as D3HR's code does; the settings that it sets are left as they are.
        moments: Also store the sums behind the statistics, in whole numbers: artifacts that have them merge
            exactly, and images can be forgotten. They take about four times the bytes of float16 statistics.
        tolerance: Stop a class when its means are known to this share of its spread, as `build_artifact`.
        producer: What made the artifact, as it says itself.

    Raises:
        ConfigError: The licence is no printable text, a value of decoding is not accepted, or `reference`
            sets what is given, too.
    """

    timesteps: tuple[float, ...] | None = None
    num_inference_steps: int | None = None
    num_steps: int | None = None
    spacing: Spacing | None = None
    guidance_scale: float = 1.0
    method: InversionMethod = "fixed_point"
    evaluations_per_step: int = 1
    noise_timestep: NoiseTimestep = "source"
    latent: PosteriorLatent = "mean"
    seed: int = 0
    num_modes: int | None = None
    decode_timestep: float | None = None
    decode_guidance_scale: float = 4.0
    decode_solver: Solver | None = None
    decode_num_steps: int | None = None
    decode_spacing: Spacing | None = None
    decode_guidance_interval: tuple[float, float] | None = None
    shrinkage: Shrinkage = "auto"
    budgets: Sequence[Budget | Mapping[str, Any]] | str | Path = ()
    image_size: int | None = None
    name: str | None = None
    license_name: str | None = None
    reference: bool = False
    moments: bool = False
    tolerance: float | None = None
    producer: str = f"d3hr-datasets {__version__}, d3hr build"

    def __post_init__(self) -> None:
        if self.license_name is not None:
            check_text("license_name", self.license_name, MAX_TEXT)  # before hours of work
        if self.decode_timestep is not None:
            check_time(self.decode_timestep)
        check_number("decode_guidance_scale", self.decode_guidance_scale, 0.0)
        if self.decode_solver is not None:
            check_choice("decode_solver", self.decode_solver, Solver)
        if self.decode_spacing is not None:
            check_choice("decode_spacing", self.decode_spacing, Spacing)
        if self.decode_num_steps is not None:
            check_int("decode_num_steps", self.decode_num_steps, 1)
        object.__setattr__(self, "shrinkage", check_shrinkage(self.shrinkage))
        if isinstance(self.budgets, str | Path):
            object.__setattr__(self, "budgets", read_json_argument(self.budgets, "file of budgets"))
        if self.image_size is not None:
            check_int("image_size", self.image_size, 1)
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", check_share(self.tolerance))
        if not isinstance(self.moments, bool):
            raise ConfigError(f"moments must be true or false, not {self.moments!r:.80}")
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = [name for name in SET_BY_REFERENCE if getattr(self, name) != defaults[name]]
        if self.reference and given:
            raise ConfigError(f"reference=True sets what {', '.join(given)} would; leave out one of them")

    def times(self, schedule: NoiseSchedule) -> tuple[float, ...]:
        """Return the times whose statistics are kept, of a model of such a schedule.

        Raises:
            ConfigError: One is none of the model's, or nothing of an image is left there.
        """
        if self.reference and schedule.grid_kind == "flow":
            raise ConfigError(
                "reference=True inverts as D3HR's code does, on timesteps, and the model is one of flow "
                "matching, whose times are sigmas; leave it out"
            )
        if self.timesteps is None:
            if self.reference:
                return (PAPERS_TIMESTEP,)
            return (schedule.default_time(self.grid_steps),)
        for time in self.timesteps if isinstance(self.timesteps, tuple) else ():
            check_known_time("timestep", time, schedule)
        if self.decode_timestep is not None:
            check_known_time("decode_timestep", self.decode_timestep, schedule)
        return self.timesteps

    def inversion(self, schedule: NoiseSchedule) -> InversionConfig:
        """Return how images are inverted with a model of such a schedule.

        Raises:
            ConfigError: A value is not accepted.
        """
        num_steps = INVERSION_STEPS if self.num_steps is None and not self.on_grid else self.num_steps
        config = InversionConfig(
            timesteps=self.times(schedule),
            num_inference_steps=self.grid_steps,
            num_train_timesteps=schedule.num_train_timesteps,
            guidance_scale=self.guidance_scale,
            noise_timestep=self.noise_timestep,
            latent=self.latent,
            seed=self.seed,
            method=self.method,
            evaluations_per_step=self.evaluations_per_step,
            num_steps=num_steps,
            spacing=self.spacing or ("uniform" if num_steps is None else "cubic"),
            grid="ddim" if self.reference else schedule.grid_kind,
            shift=None if self.reference else schedule.shift,
        )
        for time in config.timesteps:
            schedule.path(time, config.num_inference_steps, config.grid, config.first_timestep)
        return config

    def decode(self, inversion: InversionConfig) -> DecodeConfig:
        """Return how images that were inverted so are decoded.

        Raises:
            ConfigError: A value is not accepted.
        """
        time = inversion.timesteps[-1] if self.decode_timestep is None else self.decode_timestep
        steps = self.decode_num_steps
        if steps is None and not self.on_grid and time != CLEAN:
            steps = DECODE_STEPS if inversion.grid == "flow" else min(DECODE_STEPS, int(time) + 1)
        counted = steps is not None
        try:
            return DecodeConfig(
                time,
                None if counted else self.grid_steps,
                self.decode_guidance_scale,
                grid=inversion.grid,
                solver=self.decode_solver or ("dpm++2m" if counted else "ddim"),
                num_steps=steps,
                spacing=self.decode_spacing or ("quadratic" if counted else "uniform"),
                guidance_interval=self.decode_guidance_interval,
            )
        except ConfigError as error:  # by the names that they have here
            said = re.sub(r"\b(num_steps|spacing|guidance_interval)\b", r"decode_\1", str(error))
            raise ConfigError(said) from error

    def with_budgets(self, info: ArtifactInfo) -> ArtifactInfo:
        """Return a description with the rules for sets of few images per class.

        Raises:
            ConfigError: They are none, or do not fit what is stored.
        """
        rules = complete_budgets(self.budgets, info.decode, info.default_sampling)
        return dataclasses.replace(info, budgets=rules)

    @property
    def on_grid(self) -> bool:
        """Whether steps are those of a grid where nothing else is said, as in the paper."""
        return self.reference or self.num_inference_steps is not None or self.method == "ddim"

    @property
    def grid_steps(self) -> int:
        """Steps of the whole grid."""
        return GRID_STEPS if self.num_inference_steps is None else self.num_inference_steps

    @property
    def shrinkage_used(self) -> Shrinkage:
        """How far variances are drawn: the reference draws none."""
        return "none" if self.reference else self.shrinkage

    def name_of(self, output: Path) -> str:
        """Return the name of the data set in a folder."""
        return output.resolve().name.lower() if self.name is None else self.name


@dataclass(frozen=True)
class ClassOptions:
    """How the classes of a source become those of the model.

    Args:
        class_list: The model's classes in the order of its labels: "imagenet", "cifar10", ..., or a JSON
            file. By default the label map of the model.
        class_map: Class of the source -> class label, name or WordNet ID of the model, or None to leave its
            images out; or a JSON file of that.
        same_order: The source's labels are the model's; otherwise names are matched.
    """

    class_list: str | None = None
    class_map: Mapping[str, Any] | str | Path | None = None
    same_order: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.same_order, bool):
            raise ConfigError(f"same_order must be a bool, not {self.same_order!r:.80}")
        if self.class_list is not None and not isinstance(self.class_list, str):
            raise ConfigError(f"class_list must name a list or a file, not {self.class_list!r:.80}")
        if self.class_map is not None and not isinstance(self.class_map, Mapping | str | Path):
            raise ConfigError(f"class_map must be a mapping or a file, not {self.class_map!r:.80}")
