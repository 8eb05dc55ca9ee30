"""Forgetting: what is left is what a build without the images makes, and nothing else can be taken away."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS, STATISTICS
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.artifact.membership import read_membership
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.build import KeptSums
from d3hr_datasets.build.reading_ahead import image_digest, read_record
from d3hr_datasets.combine import ForgetOptions, forget_images, merge_artifacts
from d3hr_datasets.errors import CombineError, ConfigError, SourceError, UnreadableImageError
from d3hr_datasets.sources.records import ImageRecord
from tests.support.combining import Pictures, build, picture, quiet, save_pictures
from tests.support.tiny import TIMESTEPS, tiny_info

CPU = ForgetOptions(device="cpu")


def built(folder: Path, numbers: Any = range(30), **options: Any) -> tuple[Artifact, Path]:
    """Build an artifact of pictures, and return it with the file of its membership."""
    noted = folder.with_name(f"{folder.name}.membership")
    return build(folder, numbers, sums=KeptSums(noted), **options), noted


def check_close(found: LatentSums, expected: LatentSums, number: int) -> None:
    """Check that sums differ by no more than the rounding of a model in each of some images."""
    assert torch.equal(found.count, expected.count)
    for time in TIMESTEPS:
        for name, unit in (("sums", UNIT), ("squares", SQUARE_UNIT)):
            difference = (getattr(found, name)[time] - getattr(expected, name)[time]).abs().max()
            assert float(difference) * unit <= 3e-6 * number, (time, name)


@pytest.mark.parametrize("number", [1, 10, 1000])
def test_what_is_left_is_a_build_without_the_images(number: int, tmp_path: Path) -> None:
    total = 1100 if number == 1000 else 36
    artifact, noted = built(tmp_path / "all", range(total), batch_size=64, chunk_size=500)
    gone, kept = range(number), range(number, total)
    made = forget_images(
        artifact, Pictures(gone), tmp_path / "left", membership=noted, options=CPU, notify=quiet
    )
    without = build(tmp_path / "without", kept, sums=KeptSums(), batch_size=64)
    made.verify()
    assert made.info.counts == without.info.counts and sum(made.info.counts) == total - number
    before, after = (int(one.info.source["fingerprint"], 16) for one in (artifact, made))
    gone_alone = sum(int(build_digest(number), 16) for number in gone) % 2**256
    assert (before - int(without.info.source["fingerprint"], 16)) % 2**256 == gone_alone
    assert (before - after) % 2**256 != gone_alone  # it does not tell which images went
    check_close(made.sums(), without.sums(), total)
    for time in TIMESTEPS:
        found, expected = made.gaussians(time), without.gaussians(time)
        spread = float(expected.variance.mean().sqrt())
        torch.testing.assert_close(found.mean, expected.mean, rtol=2**-10, atol=1e-4 * spread)
        torch.testing.assert_close(found.variance, expected.variance, rtol=2**-9, atol=1e-4 * spread**2)
    assert artifact.info == Artifact.load(artifact.folder).info and artifact.info.counts != made.info.counts
    names = {name for name in artifact.sha256 if name not in (STATISTICS, MOMENTS)}
    assert {name: made.sha256[name] for name in names} == {name: artifact.sha256[name] for name in names}


def build_digest(number: int) -> str:
    """Return what a picture adds to the fingerprint of a build's images."""
    record = ImageRecord("", "", partial(Pictures([number]).__getitem__, 0))
    image, label = read_record(record, tiny_info())
    return f"{image_digest(image, label):064x}"


def test_images_are_forgotten_of_a_folder_and_of_what_was_left(tmp_path: Path) -> None:
    artifact, noted = built(tmp_path / "all")
    first = save_pictures(tmp_path / "first", [0, 4])
    said: list[str] = []
    made = forget_images(
        artifact.folder, first, tmp_path / "left", membership=noted, options=CPU, notify=said.append
    )
    assert said[0].startswith("2 different images were read, which were counted 2 times")
    assert "diffusion model may remember" in said[1] and "withdraw it" in said[2]
    again = forget_images(
        made,
        Pictures([5]),
        tmp_path / "less",
        membership=tmp_path / "left.membership",
        options=CPU,
        notify=quiet,
    )
    assert again.info.counts == (9, 9, 9)
    without = build(tmp_path / "without", [k for k in range(30) if k not in (0, 4, 5)], sums=KeptSums())
    check_close(again.sums(), without.sums(), 30)
    for number in (0, 4, 5):
        with pytest.raises(CombineError, match="was forgotten before"):
            forget_images(
                again,
                Pictures([number]),
                tmp_path / "no",
                membership=tmp_path / "less.membership",
                options=CPU,
            )
    assert len(read_membership(tmp_path / "less.membership").members) == 27


def test_copies_of_an_image_go_with_it(tmp_path: Path) -> None:
    artifact, noted = built(tmp_path / "all", [*range(30), 3, 3])
    assert artifact.info.counts == (12, 10, 10)
    made = forget_images(
        artifact, Pictures([3, 3]), tmp_path / "left", membership=noted, options=CPU, notify=quiet
    )
    without = build(tmp_path / "without", [k for k in range(30) if k != 3], sums=KeptSums())
    assert made.info.counts == (9, 10, 10)
    check_close(made.sums(), without.sums(), 32)


class _Labelled(Pictures):
    """Pictures of other classes than they are of."""

    def __init__(self, numbers: Any, label: int) -> None:
        super().__init__(numbers)
        self.targets = [label] * len(self.numbers)


class _Damaged(Pictures):
    """Pictures that cannot be read."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        raise OSError("truncated")


def _with_dogs(folder: Path) -> Path:
    """Save images, of which one is of a class that was not counted."""
    save_pictures(folder, [0])
    (folder / "dog").mkdir()
    picture(1).save(folder / "dog" / "1.png")
    return folder


@pytest.mark.parametrize(
    ("images", "error", "said"),
    [
        (
            lambda _: Pictures([99]),
            CombineError,
            "1 of 1 images cannot be forgotten: image 0 was never counted, as it was read here",
        ),
        (
            lambda _: Pictures([0, 99, 1, 98]),
            CombineError,
            "2 of 4 images.*image 1 was never.*image 3 was never",
        ),
        (lambda _: _Labelled([0], 1), CombineError, "was counted as 'ant', and is given as 'bee/wasp'"),
        (lambda _: Pictures(range(0, 27, 3)), CombineError, "class 'ant' would be left with 1 images"),
        (lambda _: Pictures([]), CombineError, "no images to forget"),
        (lambda _: _Damaged([0]), UnreadableImageError, "truncated"),
        (lambda _: _Labelled([0], 7), ConfigError, "class label 7|label 7"),
        (lambda _: "nowhere", SourceError, "no folder 'nowhere'"),
        (_with_dogs, ConfigError, "'dog'"),
    ],
)
def test_what_cannot_be_forgotten_is_said_and_nothing_is_written(
    images: Callable[[Path], Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    artifact, noted = built(tmp_path / "all")
    given = images(tmp_path / "images")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=said):
        forget_images(artifact, given, tmp_path / "left", membership=noted, options=CPU)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_membership_and_its_key_belong_to_an_artifact(tmp_path: Path) -> None:
    artifact, noted = built(tmp_path / "all")
    other, others = built(tmp_path / "place" / "other", range(30, 60))
    plain = build(tmp_path / "plain", range(30))
    arguments: dict[str, Any] = {"options": CPU, "notify": quiet}

    def refused(one: Artifact, said: str, error: type[Exception] = CombineError, **others: Any) -> None:
        with pytest.raises(error, match=said):
            forget_images(
                one, Pictures([0]), tmp_path / "left", **{**arguments, "membership": noted, **others}
            )

    refused(other, "membership is of an artifact whose moments.safetensors")
    refused(artifact, "was written with the key", key=others.with_name("membership.key"))
    refused(plain, "stores no sums", ConfigError)
    refused(artifact, "accepted: at most 1,000", ConfigError, key=noted)
    refused(artifact, "no file of a membership", ConfigError, membership=tmp_path / "membership.key")
    refused(artifact, "no file of a membership", ConfigError, membership=tmp_path / "nothing")
    refused(artifact, "cannot be read", ConfigError, key=tmp_path / "nothing")
    refused(artifact, "lies in an artifact", ConfigError, new_membership=tmp_path / "left" / "m")
    refused(artifact, "is there already", ConfigError, new_membership=noted)
    merged = merge_artifacts([artifact, other], tmp_path / "merged", notify=quiet)
    refused(merged, "images are forgotten in the part that has them")
    assert not (tmp_path / "left").exists() and not (tmp_path / "left.membership").exists()
    for path in (noted, tmp_path / "membership.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_other_latents_than_those_that_were_counted_are_refused(tmp_path: Path) -> None:
    artifact, noted = built(tmp_path / "all", range(9))
    weights = artifact.folder / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = {
        name: 50 * values if "quant_conv" in name else values for name, values in load_file(weights).items()
    }
    weights.unlink()
    save_file(tensors, weights)
    artifact.write_metadata()
    with pytest.raises(CombineError, match="are not what was counted"):
        forget_images(artifact, Pictures([0]), tmp_path / "left", membership=noted, options=CPU, notify=quiet)
    assert not (tmp_path / "left").exists()


def test_variances_that_were_drawn_are_drawn_anew_and_the_card_is_left_out(tmp_path: Path) -> None:
    artifact, noted = built(tmp_path / "all", shrinkage="auto")
    (artifact.folder / "README.md").write_text("accuracy")
    artifact.write_metadata()
    said: list[str] = []
    made = forget_images(
        artifact, Pictures([0, 1]), tmp_path / "left", membership=noted, options=CPU, notify=said.append
    )
    without = build(tmp_path / "without", range(2, 30), sums=KeptSums(), shrinkage="auto")
    assert made.info.shrinkage == pytest.approx(without.info.shrinkage, abs=2e-3) and made.info.shrinkage
    assert "README.md" not in made.sha256 and any(re.search(r"left out.*README\.md", line) for line in said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"num_readers": 0}, "num_readers"),
        ({"torch_dtype": torch.int8}, "torch_dtype"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ForgetOptions(**options)
