"""What an artifact says of the privacy of the images behind it: the promise, and the mechanism that keeps it.

Everything here is decided before an image is read, so it says nothing of them. `privacy` makes and uses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from d3hr_datasets.artifact.curation import Curation
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.config.json_settings import JsonSettings
from d3hr_datasets.config.settings import InversionConfig
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text

MAX_ACCOUNTANT = 300  # characters
MAX_EPSILON = 1000.0  # odds that change by more say nothing
FINEST, COARSEST = 1e-9, 1e12  # of bounds and noise
OF_IMAGES = ("fingerprint", "unreadable")  # what `source` says of the images behind other artifacts
MAX_NOISE = 2**57  # in whole units: 32 times as much and a sum, `latent_sums.MAX_SUM`, fit into 64 bits

Unit = Literal["image"]
Adjacency = Literal["add/remove"]
Mechanism = Literal["discrete Gaussian"]


@dataclass(frozen=True)
class Privacy(JsonSettings):
    """A promise of (epsilon, delta) differential privacy, and how it is kept.

    An inverted latent y of D elements is scaled by the largest a <= 1 for which ||a y|| <= `clip_norm` and
    ||(a y)^2 - `spread`|| <= `clip_squares`, norms over all elements. Of each class, the sum of a y, the sum
    of (a y)^2 - spread, and the number of images get noise.

    Args:
        epsilon: With `delta`, what is promised to each `unit`.
        delta: Likewise.
        clip_norm: Largest norm of a latent.
        clip_squares: Largest norm of its squares less `spread`.
        spread: Variance of a latent's elements where images are of unit variance; public, of the schedule.
        noise_sums: Standard deviation of the noise on each element of the sums.
        noise_squares: The same of the sums of squares.
        noise_count: The same of the numbers of images.
        accountant: What says that this noise keeps the promise, with its version.
        unit: What is protected: one image with its class.
        adjacency: Data sets that cannot be told apart: with the unit and without it.
        mechanism: The law of the noise: whole numbers, in the units of `artifact.latent_sums`.
        batch_size: Images at most that were in the model at a time. In batches of one a latent is of its
            image alone; None before a build.

    Raises:
        ConfigError: A value is not accepted.
    """

    epsilon: float
    delta: float
    clip_norm: float
    clip_squares: float
    spread: float
    noise_sums: float
    noise_squares: float
    noise_count: float
    accountant: str
    unit: Unit = "image"
    adjacency: Adjacency = "add/remove"
    mechanism: Mechanism = "discrete Gaussian"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_budget(self.epsilon, self.delta, "privacy.")
        for name in ("clip_norm", "clip_squares", "spread", "noise_sums", "noise_squares", "noise_count"):
            if check_number(f"privacy.{name}", getattr(self, name), FINEST) > COARSEST:
                raise ConfigError(f"privacy.{name} must be at most {COARSEST:g}, not {getattr(self, name)!r}")
        for name, clip, unit in (
            ("noise_sums", "clip_norm", UNIT),
            ("noise_squares", "clip_squares", SQUARE_UNIT),
        ):
            if getattr(self, name) > MAX_NOISE * unit:
                raise ConfigError(
                    f"privacy.{name}={getattr(self, name):g} is more noise than whole numbers of 64 bits "
                    f"hold, {MAX_NOISE * unit:,.0f}; give a smaller {clip} (it is {getattr(self, clip):g}), "
                    "or more of epsilon or delta"
                )
        check_choice("privacy.unit", self.unit, Unit)
        check_choice("privacy.adjacency", self.adjacency, Adjacency)
        check_choice("privacy.mechanism", self.mechanism, Mechanism)
        if not isinstance(self.accountant, str):
            raise ConfigError(f"privacy.accountant must be a string, not {self.accountant!r:.80}")
        check_text("privacy.accountant", self.accountant, MAX_ACCOUNTANT)
        if self.batch_size is not None:
            check_int("privacy.batch_size", self.batch_size, 1)

    def check_fits(self, num_modes: int, inversion: InversionConfig, curation: Curation | None) -> None:
        """Check that an artifact of these settings says nothing of its images but what is promised for.

        Raises:
            ConfigError: It does.
        """
        if num_modes > 1:
            raise ConfigError(
                f"num_modes={num_modes} does not go with privacy: modes are sought in the images themselves, "
                "which no budget covers; build with num_modes=1"
            )
        if len(inversion.timesteps) > 1:
            raise ConfigError(
                f"timesteps are {list(inversion.timesteps)}, and with privacy there is one, since each would "
                "spend the budget again; give the one that images are decoded from"
            )
        if inversion.latent == "sample":
            raise ConfigError(
                "latent='sample' does not go with privacy: samples are drawn by the place of an image in its "
                "source, so that one image more changes all those after it; build with latent='mean'"
            )
        if curation is not None and curation.target == "images":
            self.check_no_images("an order of curated images that stands for real images")

    def check_no_images(self, what: str) -> None:
        """Refuse what is made of real images beside the statistics.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{what} does not go with privacy: it is made of images themselves, and of private ones it says "
            f"more than the budget of epsilon {self.epsilon:g} covers; leave it out"
        )


def check_budget(epsilon: object, delta: object, prefix: str = "") -> None:
    """Check a promise of privacy.

    Raises:
        ConfigError: Epsilon is not above 0, or delta not between 0 and 1.
    """
    if not 0 < check_number(f"{prefix}epsilon", epsilon, 0.0) <= MAX_EPSILON:
        raise ConfigError(f"{prefix}epsilon must be above 0 and at most {MAX_EPSILON:g}, not {epsilon!r}")
    if not 0 < check_number(f"{prefix}delta", delta, 0.0) < 1:
        raise ConfigError(
            f"{prefix}delta must be above 0 and below 1, not {delta!r}; give far less than one in the number "
            "of images, such as 1e-6"
        )


def advantage_bound(epsilon: float, delta: float) -> float:
    """Return what nobody can exceed who guesses whether an image is in: true less false positive rate.

    Source: Kairouz, Oh and Viswanath (2015), "The composition theorem for differential privacy": the region
    of error rates of an (epsilon, delta) private release.
    """
    without_delta = math.tanh(epsilon / 2)  # (e^epsilon - 1) / (e^epsilon + 1), without overflow
    return without_delta + delta * (1 - without_delta)  # + 2 delta / (e^epsilon + 1)


def describe_privacy(privacy: Privacy) -> str:
    """Return what is promised, and by what, in words."""
    return (
        f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, for one {privacy.unit} added or removed, in "
        f"one release of the statistics; {privacy.mechanism} noise on sums (norm of an {privacy.unit} up to "
        f"{privacy.clip_norm:.4g}), squares (up to {privacy.clip_squares:.4g}) and counts, by "
        f"{privacy.accountant}, as whoever built it states. It holds for images that the model, and its "
        "adapter, were not trained on" + batch_condition(privacy.batch_size)
    )


def batch_condition(batch_size: int | None) -> str:
    """Return on what a promise hangs besides, by how many images were in the model at a time."""
    if batch_size == 1:
        return ""
    size = "more than one" if batch_size is None else f"up to {batch_size}"
    return (
        f", and as far as the latent of an image does not change with the others of its batch, of {size}, "
        "which nobody has proved"
    )
