"""What an artifact says of learned means: how the means of its modes were moved after the build.

The means that the images had are not stored beside them: so many bytes stay the same, and there is no way
back but the artifact that they were learned from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.json_settings import JsonSettings
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text

MAX_NETWORK = 100  # characters
MAX_SIZES = 100  # numbers of images per class

Method = Literal["distribution_matching"]
METHODS = {"distribution_matching": "distribution matching"}


@dataclass(frozen=True)
class Learned(JsonSettings):
    """How means of modes were learned, as `d3hr.json` says it.

    Args:
        method: What was made small.
        network: The untrained networks in whose features images were compared.
        iterations: Steps, each of another network and other groups.
        ipc: Sizes of the groups that were matched, images per class.
        timesteps: Whose means were moved; those of others are as they were built.
        num_images: Real images of each class at most that were matched.
        max_shift: How far each element of a mean was let go, in standard deviations within its mode.
        shift: How far they went, in the same unit: root mean square over all elements.
        loss_before: The loss of groups, networks and augmentations that no step had, of the means as built.
        loss_after: The same of the learned means.
        original: Fingerprint of the artifact that they were learned from.
        seed: Of all that was drawn.
    """

    method: Method
    network: str
    iterations: int
    ipc: tuple[int, ...]
    timesteps: tuple[float, ...]
    num_images: int
    max_shift: float
    shift: float
    loss_before: float
    loss_after: float
    original: str
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("learned.method", self.method, Method)
        check_text("learned.network", self.network, MAX_NETWORK)
        check_int("learned.iterations", self.iterations, 1)
        check_sizes("learned.ipc", self.ipc)
        if not isinstance(self.timesteps, tuple) or not self.timesteps:
            raise ConfigError(f"learned.timesteps must be a list of some, not {self.timesteps!r:.80}")
        check_int("learned.num_images", self.num_images, 1)
        check_int("learned.seed", self.seed, 0)
        for name in ("max_shift", "shift", "loss_before", "loss_after"):
            object.__setattr__(self, name, check_number(f"learned.{name}", getattr(self, name), 0.0))
        if not isinstance(self.original, str) or not re.fullmatch("[0-9a-f]{16}", self.original):
            raise ConfigError(
                f"learned.original must be sixteen hexadecimal digits, not {self.original!r:.80}"
            )

    def check_fits(self, num_modes: int, timesteps: Sequence[float]) -> None:
        """Raise `ConfigError` unless it can be that of an artifact of so many modes at these timesteps."""
        if num_modes == 1:
            raise ConfigError("learned is of the means of modes, and num_modes = 1 says that there are none")
        unknown = [time for time in self.timesteps if time not in timesteps]
        if unknown:
            raise ConfigError(f"learned.timesteps {unknown} are not stored; stored: {list(timesteps)}")


def check_sizes(name: str, sizes: Any) -> None:
    """Raise `ConfigError` unless these are some different numbers of images per class."""
    if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= MAX_SIZES or len(set(sizes)) < len(sizes):
        raise ConfigError(
            f"{name} must be 1 to {MAX_SIZES} different numbers of images per class, not {sizes!r:.80}"
        )
    for size in sizes:
        check_int(name, size, 1)


def describe_learned(learned: Learned) -> str:
    """Return how means were learned, in words."""
    steps = f"{learned.iterations:,} step{'' if learned.iterations == 1 else 's'}"
    return (
        f"means of modes at {', '.join(map(str, learned.timesteps))} moved by {METHODS[learned.method]} of "
        f"groups of {', '.join(map(str, learned.ipc))} images per class, {steps} in "
        f"features of untrained networks ({learned.network}) against at most {learned.num_images:,} real "
        f"images of each class: by {learned.shift:.2g} standard deviations of a mode (root mean square), at "
        f"most {learned.max_shift:g}; loss {learned.loss_before:.4g} before, {learned.loss_after:.4g} after; "
        f"seed {learned.seed}; learned from the artifact {learned.original}"
    )
