"""Forgetting where classes have modes: they keep their images, and lose those that go."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.membership import member_digest, open_key, read_membership
from d3hr_datasets.build.exact_moments import ExactMoments, latent_sums
from d3hr_datasets.build.reading_ahead import read_record
from d3hr_datasets.combine import forget_images
from d3hr_datasets.errors import CombineError
from d3hr_datasets.sources.records import ImageRecord
from tests.combine.test_forget import CPU, built, check_close
from tests.support.combining import Pictures, quiet
from tests.support.tiny import TIMESTEPS, tiny_model


def _of_members(noted: Path, numbers: Any, num_modes: int) -> LatentSums:
    """Return the sums of pictures in the modes that a membership says."""
    model, artifact = tiny_model(), Artifact.load(noted.with_suffix(""))
    key, rows = open_key(noted.with_name("membership.key")), {}
    for one in read_membership(noted).members:
        rows[one.digest] = one.label * num_modes + one.mode
    moments: dict[float, ExactMoments] = {t: ExactMoments(3 * num_modes, (3, 4, 4)) for t in TIMESTEPS}
    for number in numbers:
        record = ImageRecord("", "", partial(Pictures([number]).__getitem__, 0))
        image, label = read_record(record, artifact.info)
        inverted = model.invert(model.encode(image[None]), torch.tensor([label]), artifact.info.inversion)
        for time, of_time in moments.items():
            of_time.update(inverted[time], torch.tensor([rows[member_digest(key, image)]]))
    return latent_sums(moments, num_modes)


@pytest.mark.parametrize("number", [1, 10, 1000])
def test_modes_keep_their_images_and_lose_those_that_go(number: int, tmp_path: Path) -> None:
    total = 1100 if number == 1000 else 60
    how: dict[str, Any] = {"info": {"num_modes": 2, "dtype": "float32"}, "batch_size": 64, "chunk_size": 500}
    artifact, noted = built(tmp_path / "all", range(total), **how)
    expected = _of_members(noted, range(number, total), 2)
    made = forget_images(
        artifact, Pictures(range(number)), tmp_path / "left", membership=noted, options=CPU, notify=quiet
    )
    made.verify()
    assert made.modes(400).count.tolist() == expected.count.tolist() != artifact.modes(400).count.tolist()
    check_close(made.sums(), expected, total)
    for time in TIMESTEPS:
        torch.testing.assert_close(
            made.modes(time).mean, expected.modes()[time].mean.float(), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(
            made.modes(time).variance, expected.modes()[time].variance.float(), rtol=1e-3, atol=1e-6
        )


def test_a_mode_of_fewer_than_two_images_is_refused(tmp_path: Path) -> None:
    artifact, noted = built(tmp_path / "all", range(60), info={"num_modes": 2})
    found = read_membership(noted)
    number = min(artifact.modes(400).count[0].tolist())
    mode = artifact.modes(400).count[0].tolist().index(number)
    key = open_key(tmp_path / "membership.key")
    gone = {one.digest for one in found.members if one.label == 0 and one.mode == mode}
    numbers = []
    for k in range(0, 60, 3):
        record = ImageRecord("", "", partial(Pictures([k]).__getitem__, 0))
        if member_digest(key, read_record(record, artifact.info)[0]) in gone:
            numbers.append(k)
    assert len(numbers) == number > 2
    for few in (1, 0):
        said = f"mode {mode} of class 'ant' would be left with {few} of its images"
        with pytest.raises(CombineError, match=said):
            forget_images(artifact, Pictures(numbers[few:]), tmp_path / "left", membership=noted, options=CPU)
    made = forget_images(
        artifact, Pictures(numbers[2:]), tmp_path / "left", membership=noted, options=CPU, notify=quiet
    )
    assert int(made.modes(400).count[0, mode]) == 2
