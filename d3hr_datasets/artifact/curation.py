"""What an artifact says of its order of curated images: which candidates they were, and who chose them how.

A candidate is one latent of a class: its number is the seed of its noise. An order is the numbers of the
chosen candidates, the best first, so that its first k are a good set of k images; `order_file` reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.json_settings import JsonSettings, without_defaults
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text

MAX_CANDIDATES = 65_536  # of a class
MAX_METHOD, MAX_TEACHER = 100, 300  # characters

Target = Literal["candidates", "images"]


@dataclass(frozen=True)
class Curation(JsonSettings):
    """How the images of an order were chosen, as `d3hr.json` says it.

    Args:
        decode: What the candidates were decoded by; what curated sets are decoded by unless the user says
            otherwise.
        num_candidates: Candidates of each class.
        num_kept: Images of each class in the order.
        method: How they were ordered, as `curation.CurationSettings` names it. Nothing depends on it here.
        teacher: The network in whose features they were ordered.
        teacher_sha256: Checksum of its weights, names and shapes included.
        target: What the images should stand for: all "candidates", or real "images".
        recognized: Candidates of each class that the teacher takes for its class.
        seed: Seed of all candidates; class and number are mixed into it.
        mode_spread: Factor on the standard deviation within modes; None where there are none.
        difficulty_weight: How much the order prefers images that are easy for the teacher.
        difficulty_spread: How much the spread of difficulty counts in it, beside features.
    """

    decode: DecodeConfig
    num_candidates: int
    num_kept: int
    method: str
    teacher: str
    teacher_sha256: str
    target: Target
    recognized: tuple[int, ...]
    seed: int = 0
    mode_spread: float | None = None
    difficulty_weight: float = 0.0
    difficulty_spread: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.decode, DecodeConfig):
            raise ConfigError(f"curation.decode must be a DecodeConfig, not {self.decode!r:.80}")
        check_int("curation.num_candidates", self.num_candidates, 1, MAX_CANDIDATES)
        check_int("curation.num_kept", self.num_kept, 1, self.num_candidates)
        check_text("curation.method", self.method, MAX_METHOD)
        check_text("curation.teacher", self.teacher, MAX_TEACHER)
        if not isinstance(self.teacher_sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.teacher_sha256):
            raise ConfigError(
                f"curation.teacher_sha256 must be 64 hexadecimal digits, not {self.teacher_sha256!r:.80}"
            )
        check_choice("curation.target", self.target, Target)
        if not isinstance(self.recognized, tuple):
            raise ConfigError(f"curation.recognized must be a list, not {self.recognized!r:.80}")
        for number in self.recognized:
            check_int("curation.recognized", number, 0, self.num_candidates)
        check_int("curation.seed", self.seed, 0)
        for name in ("mode_spread", "difficulty_weight", "difficulty_spread"):
            value = getattr(self, name)
            if value is not None or name != "mode_spread":
                object.__setattr__(self, name, check_number(f"curation.{name}", value, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        values = without_defaults(
            super().to_dict(), mode_spread=None, difficulty_weight=0.0, difficulty_spread=0.0
        )
        return {**values, "decode": self.decode.to_dict()}

    @classmethod
    def from_dict(cls, values: Any) -> Curation:
        """Make it from JSON values.

        Raises:
            ConfigError: A field is unknown, missing, or has a value that is not accepted.
        """
        if isinstance(values, dict) and "decode" in values:
            values = {**values, "decode": DecodeConfig.from_dict(values["decode"])}
        return super().from_dict(values)

    def check_fits(self, num_classes: int, num_modes: int) -> None:
        """Raise `ConfigError` unless it can be that of an artifact of so many classes and modes."""
        if len(self.recognized) != num_classes:
            raise ConfigError(f"curation.recognized must have one entry per class ({num_classes})")
        if (self.mode_spread is None) != (num_modes == 1):
            raise ConfigError(
                f"curation.mode_spread = {self.mode_spread!r} does not go with num_modes = {num_modes}: "
                "candidates of modes have one, others have not"
            )


def describe_curation(curation: Curation) -> str:
    """Return how an order was chosen, in words, without how it is decoded."""
    low, high = min(curation.recognized), max(curation.recognized)
    target = {"candidates": "all candidates", "images": "real images"}[curation.target]
    return (
        f"{curation.num_kept} images per class in order, by {curation.method} against {target}, of "
        f"{curation.num_candidates} candidates, {low}{f' to {high}' if high > low else ''} of which the "
        f"teacher {curation.teacher} (SHA-256 {curation.teacher_sha256[:12]}...) recognises"
    )
