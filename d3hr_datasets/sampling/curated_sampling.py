"""Candidates of a class, and curated groups of them: numbers -> latents.

A candidate is drawn by itself, from its number alone. A curated group is some of them, which somebody with a
teacher has chosen and put in order; whoever has their numbers makes the same latents without one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from d3hr_datasets.artifact.gaussians import ClassGaussians, ClassModes
from d3hr_datasets.config.checks import check_int, check_number
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral


@neutral()
def sample_candidates(
    statistics: ClassGaussians | ClassModes,
    numbers: Sequence[int] | torch.Tensor,
    class_label: int,
    *,
    seed: int = 0,
    mode_spread: float | None = None,
) -> torch.Tensor:
    """Draw candidates of one class, each from its number.

    Of modes, the number chooses one of them, each as often as it has images, and adds noise to its mean. Of a
    Gaussian it adds noise to the mean of the class. The noise is standard normal, times the standard
    deviation.

    Args:
        statistics: Modes or Gaussian of one class (K = 1).
        numbers: (N,), each at least 0.
        class_label: Mixed into the seeds.
        seed: Of all candidates; mixed into their seeds.
        mode_spread: Factor on the standard deviation within modes; None with a Gaussian, whose own is taken.

    Returns:
        (N, *latent) float32 on the CPU, in the order of the numbers.

    Raises:
        ConfigError: A number or `seed` is no integer of at least 0, `mode_spread` does not fit, or the
            statistics are of several classes.
    """
    if len(statistics) != 1:
        raise ConfigError(f"statistics must be those of one class, not of {len(statistics)}")
    spread = _spread(statistics, mode_spread)
    mean, deviation = statistics.mean[0].double().cpu(), statistics.variance[0].double().cpu().sqrt()
    latents = torch.empty(len(numbers), *deviation.shape)
    for place, generator in enumerate(_generators(numbers, class_label, seed)):
        centre = mean
        if isinstance(statistics, ClassModes):
            centre = mean[_choose_mode(statistics, generator)]
        noise = torch.randn(deviation.shape, generator=generator, dtype=torch.float64)
        latents[place] = centre + spread * deviation * noise
    return latents


@neutral()
def modes_of_candidates(
    modes: ClassModes, numbers: Sequence[int] | torch.Tensor, class_label: int, *, seed: int = 0
) -> torch.Tensor:
    """Return which mode each candidate is drawn from, (N,) int64; arguments as `sample_candidates`."""
    if len(modes) != 1:
        raise ConfigError(f"modes must be those of one class, not of {len(modes)}")
    chosen = [_choose_mode(modes, drawn) for drawn in _generators(numbers, class_label, seed)]
    return torch.tensor(chosen, dtype=torch.int64)


def _spread(statistics: ClassGaussians | ClassModes, mode_spread: float | None) -> float:
    if isinstance(statistics, ClassModes):
        return check_number("mode_spread", mode_spread, 0.0)
    if mode_spread is not None:
        raise ConfigError(f"mode_spread is of modes, and the statistics have none: not {mode_spread!r}")
    return 1.0


def _generators(numbers: Sequence[int] | torch.Tensor, class_label: int, seed: int) -> list[torch.Generator]:
    check_int("seed", seed, 0)
    integers = numbers.tolist() if isinstance(numbers, torch.Tensor) else numbers
    return [
        torch.Generator().manual_seed(
            derive_seed(seed, class_label, "candidate", check_int("the number of a candidate", number, 0))
        )
        for number in integers
    ]


def _choose_mode(modes: ClassModes, generator: torch.Generator) -> int:
    """Return a mode, each as often as it has images. In integers, so that no rounding decides it."""
    ends = modes.count[0].cpu().cumsum(0)
    image = torch.randint(int(ends[-1]), (), generator=generator)
    return int(torch.searchsorted(ends, image, right=True))
