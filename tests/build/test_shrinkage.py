"""Variances of few images: how far they are drawn towards shared ones, and that this makes them better."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact, ClassGaussians
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import BuildSettings
from d3hr_datasets.build.notes import shrinkage_note
from d3hr_datasets.build.shrinkage import best_shares, shared_variance, shrink_variances
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.combining import Pictures
from tests.support.tampering import read_document
from tests.support.tiny import tiny_info, tiny_model
from tests.support.tiny_builds import build_tiny

SHAPE = (3, 4, 4)


def _sampled(counts: tuple[int, ...], seed: int, spread: float = 0.5) -> tuple[ClassGaussians, torch.Tensor]:
    """Return what is estimated of classes of so many samples, and their true variances."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.rand(SHAPE, generator=generator, dtype=torch.float64) + 0.5
    factor = torch.exp(spread * torch.randn(len(counts), *SHAPE, generator=generator, dtype=torch.float64))
    true = shared * factor
    means, variances = [], []
    for count, variance in zip(counts, true, strict=True):
        sample = variance.sqrt() * torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
        means.append(sample.mean(dim=0))
        variances.append(sample.var(dim=0))
    return ClassGaussians(torch.stack(means), torch.stack(variances), torch.tensor(counts)), true


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.7])
def test_errors_of_variances_of_ten_samples_fall(spread: float) -> None:
    before = after = 0.0
    for seed in range(10):
        found, true = _sampled((10,) * 5, seed, spread)
        shrunk, shares = shrink_variances({600: found}, "auto")
        assert len(shares) == 5 and all(0 < share <= 1 for share in shares)
        before += float((found.variance - true).square().mean())
        after += float((shrunk[600].variance - true).square().mean())
    assert after < (0.35 if spread == 0 else 0.9) * before


def test_shares_of_none_and_of_all_are_exact() -> None:
    found, _ = _sampled((10, 20, 30), 0)
    same, none = shrink_variances({600: found}, 0.0)
    assert none == () and same[600] is found
    assert shrink_variances({600: found}, "none") == ({600: found}, ())
    shrunk, shares = shrink_variances({600: found}, 1.0)
    assert shares == (1.0,) * 3
    for variance in shrunk[600].variance:
        assert torch.equal(variance, shared_variance(found))
    assert torch.equal(shrunk[600].mean, found.mean) and torch.equal(shrunk[600].count, found.count)
    half, _ = shrink_variances({600: found}, 0.5)
    torch.testing.assert_close(half[600].variance, (found.variance + shared_variance(found)) / 2)


def test_the_share_is_that_of_the_formula_and_one_for_all_times() -> None:
    first, second = (_sampled((10, 20, 30), seed)[0] for seed in (0, 1))
    weights = torch.tensor([9, 19, 29], dtype=torch.float64) / 57
    expected = []
    for k, count in enumerate((10, 20, 30)):
        noise = distance = 0.0
        for found in (first, second):
            shared = sum(weight * variance for weight, variance in zip(weights, found.variance, strict=True))
            noise += float((2 * found.variance[k] ** 2).sum()) / (count - 1)
            distance += float(((found.variance[k] - shared) ** 2).sum())
        expected.append(round(min(1.0, noise / distance), 4))
    assert best_shares([first, second]) == pytest.approx(expected, abs=1.1e-4)
    shrunk, shares = shrink_variances({0.2: first, 0.6: second}, "auto")
    assert shares == pytest.approx(expected, abs=1.1e-4) and shrunk.keys() == {0.2, 0.6}


def test_classes_of_a_hundred_images_stay_as_they_are() -> None:
    many, _ = _sampled((100, 150), 0)
    same, shares = shrink_variances({600: many}, "auto")
    assert shares == () and same[600] is many
    mixed, _ = _sampled((99, 100), 0)
    shrunk, shares = shrink_variances({600: mixed}, "auto")
    assert shares[0] > 0 and shares[1] == 0
    assert torch.equal(shrunk[600].variance[1], mixed.variance[1])
    assert not torch.equal(shrunk[600].variance[0], mixed.variance[0])


@pytest.mark.parametrize("counts", [(10,), (10, 10)])
def test_equal_variances_have_nothing_to_be_drawn_to(counts: tuple[int, ...]) -> None:
    found, _ = _sampled((10,), 0)
    same = dataclasses.replace(
        found,
        mean=found.mean.repeat(len(counts), 1, 1, 1),
        variance=found.variance.repeat(len(counts), 1, 1, 1),
        count=torch.tensor(counts),
    )
    if len(counts) == 1:
        assert shrink_variances({600: same}, "auto")[1] == ()
    shrunk = shrink_variances({600: same}, "auto")[0]
    torch.testing.assert_close(shrunk[600].variance, same.variance)


@pytest.mark.parametrize("value", ["some", -0.1, 1.1, math.nan, True, None, [0.5]])
def test_what_is_no_share_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="shrinkage must be 'auto', 'none', or a share from 0 to 1"):
        BuildSettings(shrinkage=value)


def test_the_note_counts_the_images_that_a_tolerance_uses() -> None:
    images = as_images(Pictures(range(330)))  # 110 of each class
    assert shrinkage_note(images, tiny_info(), BuildSettings()) is None
    said = shrinkage_note(images, tiny_info(), BuildSettings(tolerance=0.2))  # of 25 of each
    assert said is not None and said.startswith("3 of 3 classes use fewer than 100 images: their variances")
    of_modes = shrinkage_note(images, tiny_info(num_modes=2), BuildSettings(tolerance=0.2))
    assert of_modes is not None and "classes may use fewer than 100 images" in of_modes


def test_the_shares_are_noted_and_variances_computed_with_them(tmp_path: Path) -> None:
    model = tiny_model()
    plain = build_tiny(model, tmp_path / "plain")
    shrunk = build_tiny(model, tmp_path / "shrunk", shrinkage="auto")
    assert plain.info.shrinkage == () and read_document(plain.folder)["format"] == 1
    assert "shrinkage" not in (plain.folder / METADATA).read_text()
    assert len(shrunk.info.shrinkage) == 3 and read_document(shrunk.folder)["format"] == 2
    for time in plain.info.inversion.timesteps:
        before, after = plain.gaussians(time), shrunk.gaussians(time)
        shares = torch.tensor(shrunk.info.shrinkage, dtype=torch.float64).view(3, 1, 1, 1)
        expected = (1 - shares) * before.variance + shares * shared_variance(before)
        torch.testing.assert_close(after.variance, expected.float(), rtol=1e-5, atol=1e-6)
        assert torch.equal(after.mean, before.mean)
    assert Artifact.load(shrunk.folder).fingerprint != plain.fingerprint
