"""What decides learned means of modes."""

from __future__ import annotations

from dataclasses import dataclass

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.learned import check_sizes
from d3hr_datasets.combine.written_artifact import fitting_budgets
from d3hr_datasets.config.budgets import Budget
from d3hr_datasets.config.checks import check_int, check_number
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.dataset.generation_settings import default_settings
from d3hr_datasets.errors import ConfigError


@dataclass(frozen=True)
class LearningSettings:
    """What decides learned means. Which values make the best students is not measured yet.

    Args:
        ipc: Sizes of the groups that are matched, images per class; steps take them in turn. Means are those
            of all sets, whatever their size. By default 1 and 10, but for what the artifact has a rule for
            that is none of modes.
        iterations: Steps, each with an untrained network and groups of its own.
        max_shift: How far each element of a mean may go, in standard deviations within its mode. The noise
            that a group has about its modes is of one, so that latents stay where the diffusion model has
            seen some.
        learning_rate: Of Adam, in standard deviations within the mode; it falls to zero.
        num_images: Real images of each class that are kept in memory and matched, at most.
        real_batch: Of these, how many a step looks at.
        width: Channels of the untrained networks.
        seed: Of all that is drawn.
    """

    ipc: tuple[int, ...] | None = None
    iterations: int = 1000
    max_shift: float = 0.5
    learning_rate: float = 0.01
    num_images: int = 500
    real_batch: int = 64
    width: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ipc is not None:
            check_sizes("ipc", self.ipc)
        for name in ("iterations", "num_images", "real_batch", "width"):
            check_int(name, getattr(self, name), 1)
        check_int("seed", self.seed, 0)
        for name in ("max_shift", "learning_rate"):
            if check_number(name, getattr(self, name), 0.0) == 0:
                raise ConfigError(f"{name} must be more than 0, or no mean moves")


USUAL_SIZES = (1, 10)
Generation = tuple[GroupSamplingConfig, DecodeConfig]


def kept_budgets(info: ArtifactInfo) -> tuple[Budget, ...]:
    """Return the rules of an artifact that hold when its means are learned, and its curated order is gone."""
    return fitting_budgets(info, info.num_modes)


def generation_of(info: ArtifactInfo, sizes: tuple[int, ...] | None) -> dict[int, Generation]:
    """Return how groups of each size are sampled and decoded, as a data set does where nobody says.

    Args:
        info: Of the artifact.
        sizes: Images per class; None for those of `USUAL_SIZES` that are sampled from modes.

    Raises:
        ConfigError: Groups of a size are not those of modes.
    """
    found = {size: default_settings(info, size) for size in sizes or USUAL_SIZES}
    if sizes is None:
        of_modes = {size: how for size, how in found.items() if how[0].method == "modes"}
        found = of_modes or found
    for size, (sampling, _) in found.items():
        if sampling.method != "modes":
            raise ConfigError(
                f"ipc = {size} cannot be learned: by a rule of the artifact {info.name}, sets of {size} "
                f"images per class are sampled by {sampling.method!r}, in which the means of modes have no "
                "part. Leave the size out, or change the rule first, by `d3hr budgets`"
            )
    return found
