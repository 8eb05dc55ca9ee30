"""What decides an order of curated images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from d3hr_datasets.artifact.curation import MAX_CANDIDATES
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.curation.ordering import OrderMethod
from d3hr_datasets.errors import ConfigError


@dataclass(frozen=True)
class CurationSettings:
    """What decides an order of curated images.

    Args:
        num_candidates: Images of each class that are made and looked at.
        num_kept: Images of each class that the order has, the most that a curated set can ask for.
        method: "herding", "facility_location" or "random": see `order_candidates`. The second by default: on
            Fashion-MNIST its students were ahead of those of herding
            (`hub/results/tables/selection-curated.md`).
        seed: Of all candidates.
        mode_spread: Factor on the standard deviation within modes; by default that of "modes", 1. None is
            the only choice where the artifact stores no modes.
        difficulty_weight: How much images are preferred whose class is easy to tell for the teacher.
        difficulty_spread: How much it counts that a set has easy and hard images as often as what it stands
            for (`add_difficulty`). 0 asks for the features only, as in the weight.
        decode: How candidates become images; by default as the artifact says.
    """

    num_candidates: int = 300
    num_kept: int = 200
    method: OrderMethod = "facility_location"
    seed: int = 0
    mode_spread: float | None = None
    difficulty_weight: float = 0.0
    difficulty_spread: float = 0.0
    decode: DecodeConfig | None = None

    def __post_init__(self) -> None:
        check_int("num_candidates", self.num_candidates, 1, MAX_CANDIDATES)
        check_int("num_kept", self.num_kept, 1)
        if self.num_kept > self.num_candidates:
            raise ConfigError(
                f"num_kept must be at most num_candidates = {self.num_candidates}, not {self.num_kept}: what "
                "is kept is chosen among the candidates"
            )
        check_choice("method", self.method, OrderMethod)
        check_int("seed", self.seed, 0)
        if self.mode_spread is not None:
            check_number("mode_spread", self.mode_spread, 0.0)
        for name in ("difficulty_weight", "difficulty_spread"):
            if check_number(name, getattr(self, name), 0.0) and self.method == "random":
                raise ConfigError(f"{name} has no part in method='random'; leave it out")


def complete_settings(settings: CurationSettings, info: ArtifactInfo) -> CurationSettings:
    """Return the settings with what they leave to the artifact.

    Raises:
        ConfigError: They do not fit it, or one of its rules would not fit the order.
    """
    spread = settings.mode_spread
    if info.num_modes == 1 and spread is not None:
        raise ConfigError(
            f"mode_spread = {spread} does not go with the artifact {info.name}, which stores no modes; leave "
            "it out"
        )
    if info.num_modes > 1 and spread is None:
        spread = GroupSamplingConfig().mode_spread
    decode = settings.decode or info.decode
    info.check_decode(decode, "decode.")
    _check_rules(info, settings.num_kept, decode)
    return dataclasses.replace(settings, mode_spread=spread, decode=decode)


def _check_rules(info: ArtifactInfo, num_kept: int, decode: DecodeConfig) -> None:
    """Check that the artifact's rules of curated images fit the order that is about to be made.

    Raises:
        ConfigError: One asks for more images than are kept, or for images of another timestep.
    """
    before = "or change the rule first, by `d3hr budgets`"
    for rule in info.budgets:
        if not rule.is_curated:
            continue
        if rule.max_ipc > num_kept:
            raise ConfigError(
                f"num_kept must be at least {rule.max_ipc}, not {num_kept}: a rule of the artifact "
                f"{info.name} asks for curated sets of up to so many images per class. Keep more, {before}"
            )
        if rule.decode is not None and rule.decode.timestep != decode.timestep:
            raise ConfigError(
                f"decode.timestep must be {rule.decode.timestep}, not {decode.timestep}: a rule of the "
                f"artifact {info.name} decodes curated sets from there. Give it, {before}"
            )
