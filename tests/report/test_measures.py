"""The measures of a report, against those of scipy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scipy import stats

from d3hr_datasets import D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import CURATION
from d3hr_datasets.report.inversion import measure_noise
from d3hr_datasets.report.measures import (
    distance_to_stored,
    normality,
    sampler_scores,
    sizes,
    standardised_quantiles,
)
from tests.cli.test_cli import d3hr
from tests.support.curated import add_order, save_separate_artifact


def test_normality_is_scipys() -> None:
    latents = torch.randn(50, 2, 3, 3, generator=torch.Generator().manual_seed(0)).exp()
    latents[:, 0, 0, 0] = 1.0  # an element that does not vary
    values = latents.flatten(1).double()[:, 1:].numpy()
    found = normality(latents)
    assert found["skewness"] == pytest.approx(abs(stats.skew(values)).mean())
    assert found["excess_kurtosis"] == pytest.approx(abs(stats.kurtosis(values)).mean())
    matrix = torch.corrcoef(torch.from_numpy(values).T)
    between = matrix[~torch.eye(17, dtype=torch.bool)]
    assert found["correlation"] == pytest.approx(float(between.abs().mean()))
    same = latents[:, :1, :1, 1:2].expand(-1, 2, 1, 1)
    assert normality(same)["correlation"] == pytest.approx(1)


def test_quantiles_of_gaussian_latents_are_normal() -> None:
    latents = 5 + 3 * torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    probabilities = torch.tensor([0.025, 0.25, 0.5, 0.975], dtype=torch.float64)
    found = standardised_quantiles(latents, probabilities)
    torch.testing.assert_close(found, torch.special.ndtri(probabilities), atol=0.02, rtol=0)


def test_noise_is_of_as_many_samples_as_each_class_has_images() -> None:
    probabilities = torch.tensor([0.1, 0.9], dtype=torch.float64)
    two, fifty, both, twice = (
        measure_noise(counts, (2, 3, 3), probabilities) for counts in ([2], [50], [2, 50], [50, 50])
    )
    assert two[0]["skewness"] < 1e-6  # two samples lie symmetrically
    assert fifty[0]["skewness"] > 0.1
    assert both[0]["skewness"] == pytest.approx((two[0]["skewness"] + fifty[0]["skewness"]) / 2)
    torch.testing.assert_close(both[1], (two[1] + fifty[1]) / 2)
    assert twice[0] == pytest.approx(fifty[0])


def test_distance_is_in_standard_errors() -> None:
    mean, variance = torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 4.0)
    latents = torch.full((100, 1, 2, 2), 3.6)
    assert distance_to_stored(latents, mean, variance) == pytest.approx(3)  # 0.6 / (2 / 10)


def test_curated_groups_are_measured_where_there_are_some(tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "artifact").folder
    plain = D3HRDataset(folder, tmp_path / "root", 3, device="cpu")
    assert not any(name.startswith("curated") for name in sampler_scores(plain)) and "order" not in sizes_of(
        plain
    )
    add_order(folder)
    default, early = (
        D3HRDataset(folder, tmp_path / "root", 3, device="cpu", decode=decode)
        for decode in (None, DecodeConfig(200, 10, 2.0))
    )
    curated = D3HRDataset(folder, tmp_path / "root", 3, device="cpu", sampling=GroupSamplingConfig("curated"))
    of_all = sampler_scores(default)
    assert list(of_all)[-2:] == ["modes", "curated, at t = 200"]  # chosen there, other groups are of 400
    scores = of_all["curated, at t = 200"]
    assert sampler_scores(early)["curated"] == sampler_scores(curated)["curated"] == scores
    assert scores["loss"] > 0 and sizes_of(curated)["order"] == (folder / CURATION).stat().st_size
    add_order(folder, torch.arange(12).repeat(3, 1))
    other = D3HRDataset(folder, tmp_path / "root", 3, device="cpu")
    assert sampler_scores(other)["curated, at t = 200"] != scores
    assert list(sampler_scores(D3HRDataset(folder, tmp_path / "root", 13, device="cpu")))[-1] == "modes"


def sizes_of(dataset: D3HRDataset) -> dict[str, int]:
    dataset.materialize(progress=False)
    return sizes(dataset)


def test_a_report_is_of_the_groups_that_are_asked_for(tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "artifact").folder
    add_order(folder)
    where = ["report", folder, "--root", tmp_path / "root", "--device", "cpu", "--ipc", 2]
    done = d3hr(*where, "--output", tmp_path / "report", "--sampling", "curated", "--json")
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert (numbers["sampling"]["method"], numbers["decode"]["timestep"]) == ("curated", 200)
    assert "order of curated images" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
