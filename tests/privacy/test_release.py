"""The release: noisy sums -> class Gaussians, by what is known of the noise alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
from random import Random
from statistics import median
from typing import Any

import pytest
import torch

from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.build.exact_moments import ExactMoments, latent_sums
from d3hr_datasets.errors import ConfigError, StatisticsError
from d3hr_datasets.privacy import PrivacySettings
from d3hr_datasets.privacy.clipping import clip_latents
from d3hr_datasets.privacy.release import NoisySums, add_noise, estimate

SHAPE = (3, 4, 4)
SIZE = 48


def _mechanism(epsilon: float, **clip: Any) -> Privacy:
    return PrivacySettings(epsilon, 1e-5, **clip).mechanism(SIZE, 1.0)


def _sums(latents: torch.Tensor, labels: torch.Tensor, num_classes: int = 3) -> LatentSums:
    moments = ExactMoments(num_classes, SHAPE)
    moments.update(latents, labels)
    return latent_sums({400: moments}, 1)


def _latents(number: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(number) % 3
    noise = torch.randn(number, *SHAPE, generator=torch.Generator().manual_seed(0))
    return scale * noise + 0.3 * labels.view(-1, 1, 1, 1), labels


def test_with_hardly_any_noise_the_statistics_are_those_of_the_images() -> None:
    privacy = _mechanism(1000.0, clip_norm=20.0, clip_squares=100.0)
    latents, labels = _latents(3000, 0.8)
    assert torch.equal(clip_latents(latents, privacy), latents.double())
    found, shares = estimate(add_noise(_sums(latents, labels), privacy, Random(0)), privacy, draw=False)
    assert all(abs(count - 1000) < 4 for count in found.count.tolist()) and shares == ()
    for label in range(3):
        members = latents[labels == label].double()
        torch.testing.assert_close(found.mean[label], members.mean(0), rtol=0, atol=2e-2)
        torch.testing.assert_close(found.variance[label], members.var(0), rtol=0, atol=5e-2)


def test_noise_is_that_of_the_mechanism_on_every_number() -> None:
    privacy = _mechanism(1.0)
    sums = _sums(*_latents(9))
    plain = (sums.sums[400][:, 0].double() * 2**-32, sums.squares[400].double() * 2**-36 - 3.0)
    draws = [add_noise(sums, privacy, Random(seed)) for seed in range(30)]
    assert draws[0].count.dtype == torch.int64
    assert draws[0].sums.dtype == draws[0].squares.dtype == torch.float64
    assert not torch.equal(draws[0].sums, draws[0].sums.float().double())  # nothing was rounded on the way
    for name, exact, scale in zip(
        ("sums", "squares"), plain, (privacy.noise_sums, privacy.noise_squares), strict=True
    ):
        noise = torch.stack([getattr(draw, name) - exact for draw in draws]) / scale
        assert abs(float(noise.std()) - 1) < 0.06 and abs(float(noise.mean())) < 0.06
        assert len(set(noise.flatten().tolist())) > 4000
        for rows in (noise.flatten(1), noise.flatten(1).T):  # neither draws nor elements go together
            related = rows.corrcoef().square()
            number, expected = len(rows), 1 / (rows.shape[1] - 1)
            mean = float(related.sum() - number) / (number * (number - 1))
            assert abs(mean / expected - 1) < 0.2 and float(related.fill_diagonal_(0).max()) < 0.6
    counts = torch.stack([draw.count - 3 for draw in draws]).double() / privacy.noise_count
    assert 0.7 < float(counts.std()) < 1.3
    first, second = (add_noise(sums, privacy) for _ in range(2))  # of the system
    assert not torch.equal(first.sums, second.sums) and not torch.equal(first.squares, second.squares)


def test_noise_that_is_too_little_for_the_promise_is_refused() -> None:
    privacy = dataclasses.replace(_mechanism(3.0), epsilon=1.0)
    with pytest.raises(ConfigError, match=r"noise of privacy is that of epsilon=2\.9\d*, and 1 is promised"):
        add_noise(_sums(*_latents(9)), privacy, Random(0))


def test_noise_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    privacy, sums = _mechanism(3.0), _sums(*_latents(9))
    shown = add_noise(sums, privacy, Random(0), progress=True)
    assert "291/291" in capsys.readouterr().err  # (2 D + 1) K
    assert torch.equal(add_noise(sums, privacy, Random(0)).squares, shown.squares)
    assert capsys.readouterr().err == ""


def test_counts_that_whole_numbers_have_no_room_for_are_refused() -> None:
    sums = _sums(*_latents(9))
    many = dataclasses.replace(sums, count=torch.full_like(sums.count, 2**28))
    with pytest.raises(StatisticsError, match="268,435,456 images"):
        add_noise(many, _mechanism(3.0), Random(0))


def test_statistics_are_gaussians_whatever_the_noise_makes_of_sums() -> None:
    privacy = _mechanism(1.0)
    shape = (3, *SHAPE)
    for draw in (False, True):
        noised = NoisySums(torch.tensor([-50, 0, 9]), torch.full(shape, -1e3), torch.full(shape, -1e4))
        found, _ = estimate(noised, privacy, draw)
        assert found.count.tolist() == [2, 2, 9]
        assert float(found.mean.flatten(1).norm(dim=1).max()) <= privacy.clip_norm * (1 + 1e-12)
        assert float(found.variance.min()) > 0
        assert float(found.variance.max()) <= privacy.spread + privacy.clip_squares


def test_drawing_towards_what_classes_share_errs_less_where_there_is_much_noise() -> None:
    privacy = _mechanism(1.0)
    latents, labels = _latents(900, 0.8)
    noised = add_noise(_sums(clip_latents(latents, privacy), labels), privacy, Random(0))
    errors = []
    for draw in (False, True):
        found, shares = estimate(noised, privacy, draw)
        errors.append(float((found.variance - 0.64).square().mean()))
        means = 0.3 * torch.arange(3, dtype=torch.float64).view(-1, 1, 1, 1)
        errors.append(float((found.mean - means).square().mean()))
    assert errors[2] < errors[0] / 2 and errors[3] < errors[1]
    assert len(shares) == 3 and all(0 <= share <= 1 for share in shares) and max(shares) > 0.5


def test_squares_of_noisy_means_are_no_longer_trusted_than_they_are_right() -> None:
    """So few images that the noise of means, squared, is more than that of squares."""
    privacy = _mechanism(1.0)
    latents, labels = _latents(30, 0.8)
    sums = _sums(clip_latents(latents, privacy), labels)
    errors: dict[bool, list[float]] = {False: [], True: []}
    for seed, draw in itertools.product(range(10), (False, True)):
        found, shares = estimate(add_noise(sums, privacy, Random(seed)), privacy, draw)
        errors[draw].append(float((found.variance - 0.64).square().mean()))
        assert not draw or min(shares) > 0.5
    assert median(errors[True]) < median(errors[False]) / 50


def test_a_class_of_hardly_any_image_has_variances_that_half_precision_holds() -> None:
    shape, generator = (2, 16, 128, 128), torch.Generator().manual_seed(0)
    privacy = PrivacySettings(1.0, 1e-6).mechanism(math.prod(shape[1:]), 0.9)
    sums, squares = (
        scale * torch.randn(shape, generator=generator).double()
        for scale in (privacy.noise_sums, privacy.noise_squares)
    )
    for draw in (False, True):
        found, _ = estimate(NoisySums(torch.tensor([0, 2]), sums, squares), privacy, draw)
        assert float(found.variance.half().max()) < 1000 and float(found.mean.half().abs().max()) < 1000
