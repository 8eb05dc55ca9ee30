"""Builds to a stated precision: which images are used, and when a class has had enough."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, UnidentifiedImageError

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA, MOMENTS
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.artifact.membership import read_membership
from d3hr_datasets.artifact.tolerance import Tolerance
from d3hr_datasets.build import KeptSums
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.early_stop import has_enough, random_orders
from d3hr_datasets.build.exact_moments import ExactMoments
from d3hr_datasets.build.moments import RunningMoments
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.records import StreamedImages
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.combining import Pictures, build, file_bytes, latents
from tests.support.tiny import TIMESTEPS, TinyImages, tiny_info, tiny_model

MODEL = tiny_model()


class CountingPictures(Pictures):
    """Pictures; notes which are read, and is killed when one of a number is."""

    def __init__(self, numbers: Any, fatal: int | None = None, broken: tuple[int, ...] = ()) -> None:
        super().__init__(numbers)
        self.fatal, self.broken, self.read = fatal, broken, set[int]()

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.read.add(index)
        if index == self.fatal:
            raise KeyboardInterrupt("killed")
        if index in self.broken:
            raise UnidentifiedImageError("broken")
        return super().__getitem__(index)


def _build(folder: Path, source: Any, work: Path | None = None, **options: Any) -> Artifact:
    info = tiny_info(**{"dtype": "float32", **options.pop("info", {})})
    given: dict[str, Any] = {"batch_size": 8, "chunk_size": 8, "progress": False, **options}
    return build_artifact(source, MODEL, folder, info, work or folder.with_suffix(".chunks"), **given)


def _chosen(images: Pictures, per_class: int, **info: Any) -> list[int]:
    """Return the numbers of the images that are used."""
    orders = random_orders(as_images(images), tiny_info(**info))
    return [images.numbers[place] for order in orders for place in order[:per_class]]


def test_a_class_stops_when_its_mean_is_known(tmp_path: Path) -> None:
    source = CountingPictures(range(60))
    artifact = _build(tmp_path / "a", source, tolerance=0.35)  # 1 / 0.35^2 is 8.2
    assert artifact.info.counts == (9, 9, 9)
    assert artifact.info.tolerance == Tolerance(0.35, 60)
    chosen = _chosen(source, 9)
    assert source.read == set(chosen) and len(source.read) == 27
    assert sorted(chosen) != sorted(range(27))  # not the first ones
    expected = _build(tmp_path / "b", Pictures(chosen))
    for time in TIMESTEPS:
        torch.testing.assert_close(artifact.gaussians(time).mean, expected.gaussians(time).mean)
        torch.testing.assert_close(artifact.gaussians(time).variance, expected.gaussians(time).variance)
    assert artifact.info.source["fingerprint"] == expected.info.source["fingerprint"]
    assert expected.info.tolerance is None


def test_it_says_so_in_json_and_in_words(tmp_path: Path) -> None:
    artifact = _build(tmp_path / "a", Pictures(range(31)), tolerance=0.31)  # of 11 images
    assert artifact.info.counts == (11, 10, 10)
    document = json.loads((artifact.folder / METADATA).read_text())
    assert document["format"] == 2
    assert document["info"]["tolerance"] == {"share": 0.31, "num_images": 31, "not_reached": [1, 2]}
    assert Artifact.load(artifact.folder).info == artifact.info
    said = artifact_facts(artifact)["precision"]
    assert "31 of 31 images" in said and "at most 31 %" in said
    assert "all images of 2 of 3 classes did not suffice (bee/wasp, cat)" in said


def test_the_seed_decides_which_images_are_used() -> None:
    images = Pictures(range(60))
    seeds = [{"inversion": tiny_info().inversion.__class__(TIMESTEPS, 10, seed=seed)} for seed in (0, 0, 1)]
    found = [_chosen(images, 9, **info) for info in seeds]
    assert found[0] == found[1] and set(found[0]) != set(found[2])
    assert sorted(_chosen(images, 20)) == list(range(60))


def test_of_all_images_the_sums_are_those_of_a_full_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = build(tmp_path / "full", range(18), sums=KeptSums())
    with caplog.at_level(logging.WARNING):
        found = build(tmp_path / "found", range(18), sums=KeptSums(), tolerance=0.05)
    assert file_bytes(found) == file_bytes(full)
    assert found.info.tolerance == Tolerance(0.05, 18, (0, 1, 2))
    assert (
        "all images of 3 of 3 classes did not suffice for --tolerance 0.05: ant, bee/wasp, cat" in caplog.text
    )


def test_membership_notes_the_images_that_were_used(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    build(tmp_path / "a", range(60), sums=KeptSums(noted), tolerance=0.35, batch_size=8)
    assert sum(one.copies for one in read_membership(noted).members) == 27


def test_samples_of_the_posterior_are_those_of_the_image(tmp_path: Path) -> None:
    """Its seed is that of the image's number, whatever round it is in."""
    info = {"inversion": tiny_info().inversion.__class__(TIMESTEPS, 10, latent="sample")}
    full = _build(tmp_path / "full", Pictures(range(12)), info=info, sums=KeptSums(), batch_size=1)
    options: dict[str, Any] = {"sums": KeptSums(), "batch_size": 1}
    found = _build(tmp_path / "found", Pictures(range(12)), info=info, tolerance=0.05, **options)
    assert file_bytes(found, MOMENTS) == file_bytes(full, MOMENTS)


def test_an_image_that_cannot_be_read_is_made_up_for(tmp_path: Path) -> None:
    chosen = _chosen(Pictures(range(60)), 9)
    source = CountingPictures(range(60), broken=(chosen[0],))
    artifact = _build(tmp_path / "a", source, tolerance=0.35, skip_unreadable=1)
    assert len(artifact.info.source["unreadable"]) == 1
    assert artifact.info.counts == (11, 9, 9)  # a quarter of nine, rounded up, in the second round
    assert artifact.info.tolerance == Tolerance(0.35, 60)


@pytest.mark.parametrize("kind", [RunningMoments, ExactMoments])
def test_standard_errors_are_those_of_the_definition(kind: Any) -> None:
    modes, number = 3, 24
    values = latents(2 * number, seed=1)
    rows = torch.arange(2 * number) % (2 * modes)
    values += rows.view(-1, 1, 1, 1) * 0.7
    moments = kind(2 * modes, values.shape[1:])
    moments.update(values, rows)
    for label in range(2):
        members = [values[rows == label * modes + mode].double() for mode in range(modes)]
        whole = torch.cat(members)
        spread = whole.var(dim=0, correction=1).mean().sqrt()
        squares = torch.stack([(one - one.mean(0)).square().sum(0) for one in members])
        within = squares.sum(dim=0) / (number - modes)
        errors = [(within / len(one)).mean().sqrt() for one in members]
        weighed = sum(len(one) / number * error**2 for one, error in zip(members, errors, strict=True))
        share = float(math.sqrt(weighed) / spread)
        assert share > number**-0.5  # so it is modes that decide
        assert has_enough({400: moments}, label, modes, share * 1.001)
        assert not has_enough({400: moments}, label, modes, share * 0.999)


def test_a_mode_without_an_image_is_waited_for() -> None:
    moments = RunningMoments(2, (3, 4, 4))
    moments.update(latents(50), torch.zeros(50, dtype=torch.int64))
    assert not has_enough({400: moments}, 0, 2, 0.9)
    moments.update(latents(1), torch.ones(1, dtype=torch.int64))
    assert has_enough({400: moments}, 0, 2, 0.9)


def test_a_class_of_equal_images_has_enough() -> None:
    moments = RunningMoments(2, (3, 4, 4))
    moments.update(torch.zeros(8, 3, 4, 4), torch.arange(8) % 2)
    assert has_enough({400: moments}, 0, 2, 0.5)


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 1.5, math.nan, "0.1", True, 1e-5])
def test_shares_that_are_none_are_refused(tolerance: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tolerance must be"):
        _build(tmp_path / "a", Pictures(range(12)), tolerance=tolerance)


def test_streams_and_unknown_labels_are_refused(tmp_path: Path) -> None:
    stream = StreamedImages(1, 12, lambda shard, start: iter(()))
    with pytest.raises(ConfigError, match="a stream cannot give; build from a copy on disk"):
        _build(tmp_path / "a", stream, tolerance=0.5)
    with pytest.raises(ConfigError, match="give the data set `targets`"):
        _build(tmp_path / "a", TinyImages(), tolerance=0.5)
    assert not (tmp_path / "a").exists() and not (tmp_path / "a.chunks").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 2}, "tolerance.share must be"),
        ({"num_images": 0}, "tolerance.num_images must be"),
        ({"num_images": 11}, "counts say that 12 were used"),
        ({"not_reached": [3]}, "tolerance.not_reached must be class labels 0 to 2"),
        ({"not_reached": [1, 0]}, "ascending"),
        ({"not_reached": 1}, "must be a list"),
        ({"other": 1}, "does not know"),
    ],
)
def test_descriptions_that_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"share": 0.1, "num_images": 12, **changes}
    with pytest.raises(ConfigError, match=message):
        tiny_info().from_dict({**tiny_info().to_dict(), "tolerance": values})
