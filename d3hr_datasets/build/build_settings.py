"""What is asked of a build: settings of the artifact and of its classes.

In: values as people give them. Out: settings that are validated, with the defaults of `d3hr build`; those of
inversion and decoding are made of them where the model's schedule is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.info import MAX_TEXT
from d3hr_datasets.config.checks import check_int, check_number
from d3hr_datasets.config.settings import (
    DecodeConfig,
    InversionConfig,
    InversionMethod,
    NoiseTimestep,
    PosteriorLatent,
)
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text
from d3hr_datasets.version import __version__

# What `reference` says itself.
SET_BY_REFERENCE = (
    "num_inference_steps",
    "guidance_scale",
    "method",
    "evaluations_per_step",
    "noise_timestep",
    "latent",
    "num_modes",
    "decode_guidance_scale",
)


@dataclass(frozen=True)
class BuildSettings:
    """What is built; where it is None, what fits the model or the images.

    Args:
        timesteps: Timesteps to keep statistics of.
        num_inference_steps: Steps of the whole DDIM grid, of inversion and decoding.
        guidance_scale: Guidance while inverting, 1 is none; this and the next five as `InversionConfig`.
        method: The more exact inversion, or the paper's, at the same cost.
        evaluations_per_step: Of the model.
        noise_timestep: Where a step of "ddim" evaluates the model.
        latent: Of the VAE's posterior.
        seed: Seed of posterior samples, and of the images in which modes are sought.
        num_modes: Modes per class; 1 stores none. By default a number that fits the images.
        decode_timestep: Timestep to decode from; by default the last of `timesteps`.
        decode_guidance_scale: Guidance while decoding.
        image_size: Side of the images without their frame; by default what the model was trained on.
        name: Name of the data set; by default that of the artifact's folder.
        license_name: Licence of the images, noted in the artifact.
        reference: Invert and decode as D3HR's code does; the settings that it sets are left as they are.
        producer: What made the artifact, as it says itself.

    Raises:
        ConfigError: The licence is no printable text, a value of decoding is not accepted, or `reference`
            sets what is given, too.
    """

    timesteps: tuple[int, ...] = (600,)
    num_inference_steps: int = 50
    guidance_scale: float = 1.0
    method: InversionMethod = "fixed_point"
    evaluations_per_step: int = 1
    noise_timestep: NoiseTimestep = "source"
    latent: PosteriorLatent = "mean"
    seed: int = 0
    num_modes: int | None = None
    decode_timestep: int | None = None
    decode_guidance_scale: float = 4.0
    image_size: int | None = None
    name: str | None = None
    license_name: str | None = None
    reference: bool = False
    producer: str = f"d3hr-datasets {__version__}, d3hr build"

    def __post_init__(self) -> None:
        if self.license_name is not None:
            check_text("license_name", self.license_name, MAX_TEXT)  # before hours of work
        if self.decode_timestep is not None:
            check_int("decode_timestep", self.decode_timestep, -1)
        check_number("decode_guidance_scale", self.decode_guidance_scale, 0.0)
        if self.image_size is not None:
            check_int("image_size", self.image_size, 1)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = [name for name in SET_BY_REFERENCE if getattr(self, name) != defaults[name]]
        if self.reference and given:
            raise ConfigError(f"reference=True sets what {', '.join(given)} would; leave out one of them")

    def inversion(self, num_train_timesteps: int) -> InversionConfig:
        """Return how images are inverted with a model of so many timesteps.

        Raises:
            ConfigError: A value is not accepted.
        """
        return InversionConfig(
            timesteps=self.timesteps,
            num_inference_steps=self.num_inference_steps,
            num_train_timesteps=num_train_timesteps,
            guidance_scale=self.guidance_scale,
            noise_timestep=self.noise_timestep,
            latent=self.latent,
            seed=self.seed,
            method=self.method,
            evaluations_per_step=self.evaluations_per_step,
        )

    def decode(self) -> DecodeConfig:
        """Return how images are decoded."""
        timestep = self.timesteps[-1] if self.decode_timestep is None else self.decode_timestep
        return DecodeConfig(timestep, self.num_inference_steps, self.decode_guidance_scale)

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
