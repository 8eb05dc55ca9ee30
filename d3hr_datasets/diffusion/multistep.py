"""Steps of second order that remember the evaluation before: for good images in few evaluations.

They integrate the probability flow in log(signal / noise), lambda, with the predicted clean latents as what
varies slowly. Written over levels of noise, as `solver.step` is, so that they start at any time and serve
models of betas and of flow matching. diffusers has the same in `DPMSolverMultistepScheduler` and
`UniPCMultistepScheduler`, with which the tests compare, but neither can start anywhere: of sigmas the former
takes only its own, and the latter takes timesteps only of its own.

    symbol of the papers      here
    alpha_t, sigma_t          level.signal, level.noise
    lambda_t                  log_snr(level)
    h, r                      distance, ratio
    x_theta                   clean

Source: DPM-Solver++ (Lu et al., 2022, arXiv 2211.01095), algorithm 2, the 2M with the midpoint's
coefficients; UniPC (Zhao et al., 2023, arXiv 2302.04867), order 2, B(h) = exp(h) - 1 ("bh2").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from d3hr_datasets.diffusion.noise_schedule import NoiseLevel
from d3hr_datasets.diffusion.walk_times import log_snr
from d3hr_datasets.numerics.torch_settings import neutral


@dataclass(frozen=True)
class _Evaluation:
    """Where the model was asked: latents (B, C, H, W), their level, and the clean latents it predicted."""

    latents: torch.Tensor
    clean: torch.Tensor
    level: NoiseLevel


class MultistepSolver:
    """The steps of one walk, in their order. The first and the last are DDIM's, which is of first order.

    Args:
        num_steps: Steps of the walk.
        corrects: Whether latents are corrected where the model was asked (UniPC), for no evaluation more.
    """

    def __init__(self, num_steps: int, corrects: bool) -> None:
        self._remaining = num_steps
        self._corrects = corrects
        self._evaluations: list[_Evaluation] = []  # the last two
        self._was_second_order = False

    @neutral(grad=None)
    def step(
        self, latents: torch.Tensor, noise: torch.Tensor, level_from: NoiseLevel, level_to: NoiseLevel
    ) -> torch.Tensor:
        """Carry latents to the next level. Arguments and result as those of `solver.step`."""
        clean = (latents - level_from.noise * noise) / level_from.signal
        if self._corrects and self._evaluations:
            latents = self._corrected(clean, level_from)
        now = _Evaluation(latents, clean, level_from)
        self._evaluations = [*self._evaluations[-1:], now]
        self._remaining -= 1
        reached = _first_order(now, level_to)
        self._was_second_order = False
        if len(self._evaluations) == 1 or self._remaining == 0:
            return reached
        before = self._evaluations[0]
        distance, earlier = _distance(level_from, level_to), _distance(before.level, level_from)
        if distance is None or earlier is None:
            return reached
        self._was_second_order = True
        slope = (clean - before.clean) * (distance / earlier)
        return reached + 0.5 * _weight(level_from, level_to) * slope

    def _corrected(self, clean: torch.Tensor, level: NoiseLevel) -> torch.Tensor:
        """Take the last step again, with the prediction at its end, too: UniC of the step's order."""
        start = self._evaluations[-1]
        reached, distance = _first_order(start, level), _distance(start.level, level)
        if distance is None:
            return reached
        change, weight = clean - start.clean, _weight(start.level, level)
        if not self._was_second_order:
            return reached + 0.5 * weight * change
        before = self._evaluations[0]
        earlier = _distance(before.level, start.level)
        assert earlier is not None  # else the step would have been of first order
        ratio = -earlier / distance
        first = (math.expm1(-distance) / -distance - 1) / math.expm1(-distance)
        second = 2 * ((math.expm1(-distance) / -distance - 1) / -distance - 0.5) / math.expm1(-distance)
        of_before = (first - second) / (1 - ratio)
        slope = (before.clean - start.clean) / ratio
        return reached + weight * (of_before * slope + (first - of_before) * change)


def _first_order(start: _Evaluation, level: NoiseLevel) -> torch.Tensor:
    """Return DDIM's step, of latents and the clean ones that are predicted there."""
    if start.level.noise == 0:
        return start.latents * (level.signal / start.level.signal)
    share = level.noise / start.level.noise
    return share * start.latents + (level.signal - share * start.level.signal) * start.clean


def _weight(level_from: NoiseLevel, level_to: NoiseLevel) -> float:
    """Return by how much a step moves towards the clean latents, alpha_t (1 - exp(-h))."""
    return level_to.signal - level_to.noise / level_from.noise * level_from.signal


def _distance(level_from: NoiseLevel, level_to: NoiseLevel) -> float | None:
    """Return the length of a step in lambda, or None where it has none that can be divided by."""
    distance = log_snr(level_to) - log_snr(level_from)
    return distance if 0 < distance < math.inf else None
