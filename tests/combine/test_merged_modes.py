"""Merging modes: joined or side by side, with the variance of the class within and between them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.combine import merge_artifacts
from d3hr_datasets.errors import CombineError, ConfigError
from tests.support.combining import artifact_of, clumps, file_bytes, latents, of_prompts, quiet
from tests.support.tiny import TIMESTEPS


def test_modes_are_joined_where_they_are_near_and_the_class_stays_exact(tmp_path: Path) -> None:
    whole, parts = clumps(tmp_path, dtype="float32")
    said: list[str] = []
    merged = merge_artifacts(parts, tmp_path / "merged", num_modes=4, notify=said.append)
    assert any("one build of all images would find others" in one for one in said)
    found, expected = merged.sums(), whole.sums()
    for label in range(3):  # the same four clumps, in whatever order
        rows = {tuple(row.flatten().tolist()) for row in found.sums[400][label]}
        assert rows == {tuple(row.flatten().tolist()) for row in expected.sums[400][label]}
        assert sorted(found.count[label].tolist()) == sorted(expected.count[label].tolist())
    assert torch.equal(merged.gaussians(400).variance, whole.gaussians(400).variance)
    for number, order in enumerate(permutations(parts)):
        again = merge_artifacts(order, tmp_path / f"again{number}", num_modes=4, notify=quiet)
        assert file_bytes(again) == file_bytes(merged)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("options", [{"num_modes": 2}, {"num_modes": 1}, {"keep_modes": True}, {}])
def test_variance_is_that_within_modes_and_that_between_them(
    options: dict[str, Any], keep: bool, tmp_path: Path
) -> None:
    _, parts = clumps(tmp_path, dtype="float32", keep=keep)
    merged = merge_artifacts(parts, tmp_path / "merged", notify=quiet, **options)
    number = {"num_modes": options.get("num_modes"), "keep_modes": 9}.get([*options, ""][0], 3)
    assert merged.info.num_modes == number and (MOMENTS in merged.sha256) == keep
    merged.verify()
    if number == 1:
        return
    for time in TIMESTEPS:
        gaussian, modes = merged.gaussians(time), merged.modes(time)
        size = modes.count.double().view(3, number, 1, 1, 1)
        total = size.sum(dim=1)
        mean = (modes.mean.double() * size).sum(dim=1) / total
        between = (size * (modes.mean.double() - mean[:, None]).square()).sum(dim=1)
        within = modes.variance.double() * (total - number)
        torch.testing.assert_close(mean.float(), gaussian.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            ((within + between) / (total - 1)).float(), gaussian.variance, rtol=1e-5, atol=1e-6
        )


def test_side_by_side_all_modes_are_there_as_they_were(tmp_path: Path) -> None:
    _, parts = clumps(tmp_path, dtype="float32")
    merged = merge_artifacts(parts, tmp_path / "merged", keep_modes=True, notify=quiet)
    for label in range(3):
        found = {tuple(row.flatten().tolist()) for row in merged.modes(400).mean[label]}
        given = [row for part in parts for row in part.modes(400).mean[label]]
        assert found == {tuple(row.flatten().tolist()) for row in given} and len(given) == 9


def test_numbers_of_modes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    _, parts = clumps(tmp_path)
    plain = artifact_of(tmp_path / "plain", latents(30), torch.arange(30) % 3)
    for options, said in (
        ({}, "1 and 3 modes per class; say how many"),
        ({"num_modes": 5}, "more modes than class 'ant' has in all parts, 4"),
        ({"num_modes": 2, "keep_modes": True}, "give one of them"),
        ({"num_modes": 0}, "num_modes must be from 1 to 1024"),
    ):
        with pytest.raises((CombineError, ConfigError), match=said):
            merge_artifacts([parts[0], plain], tmp_path / "no", **options)  # type: ignore[arg-type]
    some = [
        artifact_of(tmp_path / name, latents(20, k), torch.arange(20) % 4, num_modes=2, **of_prompts(*names))
        for k, (name, names) in enumerate({"x": ("cat", "bee"), "y": ("cat", "ant")}.items())
    ]
    with pytest.raises(CombineError, match="class 'bee' has 2 modes and class 'cat' 4"):
        merge_artifacts(some, tmp_path / "no", keep_modes=True)
    assert not (tmp_path / "no").exists()
