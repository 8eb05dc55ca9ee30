"""What decides an order of curated images."""

from __future__ import annotations

from dataclasses import dataclass

from d3hr_datasets.artifact.curation import MAX_CANDIDATES
from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.curation.ordering import OrderMethod
from d3hr_datasets.errors import ConfigError


@dataclass(frozen=True)
class CurationSettings:
    """What decides an order of curated images.

    Args:
        num_candidates: Images of each class that are made and looked at.
        num_kept: Images of each class that the order has, the most that a curated set can ask for.
        method: "herding", "facility_location" or "random": see `order_candidates`. Herding by default:
            students see each image of a set as often as any other, so a set should have every kind of image
            as often as the class has, which is what herding aims at for every size. Which of them makes the
            better students is not measured yet.
        seed: Of all candidates.
        mode_spread: Factor on the standard deviation within modes; by default that of "modes", 1.15. None is
            the only choice where the artifact stores no modes.
        difficulty_weight: How much images are preferred whose class is easy to tell for the teacher. 0 asks
            for the features only.
        decode: How candidates become images; by default as the artifact says.
    """

    num_candidates: int = 300
    num_kept: int = 200
    method: OrderMethod = "herding"
    seed: int = 0
    mode_spread: float | None = None
    difficulty_weight: float = 0.0
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
        if check_number("difficulty_weight", self.difficulty_weight, 0.0) and self.method == "random":
            raise ConfigError("difficulty_weight has no part in method='random'; leave it out")
