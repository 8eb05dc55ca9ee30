"""Builds that keep the sums behind the statistics, and whose they are."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3hr_datasets import Artifact, InversionConfig
from d3hr_datasets.artifact.d3hr_json import MOMENTS, STATISTICS, needed_files
from d3hr_datasets.artifact.latent_sums import MAX_ENERGY, LatentSums
from d3hr_datasets.artifact.membership import (
    is_membership,
    read_membership,
)
from d3hr_datasets.artifact.moments_file import moments_bytes
from d3hr_datasets.artifact.units import UNIT
from d3hr_datasets.build import BuildSettings, KeptSums
from d3hr_datasets.build.exact_moments import ExactMoments, check_room, latent_sums
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, StatisticsError
from tests.support.combining import Pictures, build
from tests.support.tampering import refresh_checksum
from tests.support.tiny import TIMESTEPS, tiny_info, tiny_model
from tests.support.tiny_builds import build_tiny


def test_sums_are_those_of_the_statistics_in_four_times_their_bytes(tmp_path: Path) -> None:
    plain, kept = build(tmp_path / "plain", range(30)), build(tmp_path / "kept", range(30), sums=KeptSums())
    assert MOMENTS not in plain.sha256 and MOMENTS in kept.sha256
    assert MOMENTS not in needed_files(kept.info, kept.sha256)
    kept.verify()
    for time in TIMESTEPS:
        torch.testing.assert_close(
            kept.gaussians(time).mean, plain.gaussians(time).mean, rtol=2**-10, atol=1e-6
        )
        torch.testing.assert_close(
            kept.gaussians(time).variance, plain.gaussians(time).variance, rtol=2**-10, atol=1e-7
        )
    size = (kept.folder / MOMENTS).stat().st_size
    assert moments_bytes(kept.info) < size < moments_bytes(kept.info) + 1000
    assert moments_bytes(kept.info) == 16 * 3 * 48 * 3 + 24
    with pytest.raises(ConfigError, match="stores no sums"):
        plain.sums()
    written = {name for name in plain.sha256 if name != STATISTICS}
    assert {name: kept.sha256[name] for name in written} == {name: plain.sha256[name] for name in written}
    assert kept.info == plain.info


def test_batches_chunks_and_their_order_do_not_matter_to_the_sums(tmp_path: Path) -> None:
    values, rows = torch.randn(60, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 6
    whole = ExactMoments(6, (3, 4, 4))
    whole.update(values, rows)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    parts = ExactMoments(6, (3, 4, 4))
    for batch in order.split(7):
        part = ExactMoments(6, (3, 4, 4))
        part.update(values[batch], rows[batch])
        parts.merge(part)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor)
    found = latent_sums({400: whole}, 2)
    members = values.double().view(10, 6, 3, 4, 4)
    torch.testing.assert_close(
        found.modes()[400].mean.view(6, 3, 4, 4), members.mean(dim=0), rtol=0, atol=1e-9
    )
    of_class = members.view(10, 3, 2, 3, 4, 4).transpose(1, 2).reshape(20, 3, 3, 4, 4)
    torch.testing.assert_close(found.gaussians()[400].variance, of_class.var(dim=0), rtol=1e-8, atol=1e-9)


def test_latents_that_are_all_the_same_have_no_variance() -> None:
    moments = ExactMoments(1, (1, 2, 2))
    moments.update(torch.full((1000, 1, 2, 2), 1 / 3), torch.zeros(1000, dtype=torch.int64))
    gaussian = latent_sums({400: moments}, 1).gaussians()[400]
    assert float(gaussian.variance.max()) < 1e-9 and float((gaussian.mean - 1 / 3).abs().max()) < UNIT + 1e-8


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "not finite"),
        (MAX_ENERGY**0.5, "too large or too many"),
        (1e30, "too large or too many"),
    ],
)
def test_latents_that_are_too_large_for_sums_are_refused_whole(value: float, said: str) -> None:
    moments = ExactMoments(2, (1, 1, 1))
    moments.update(torch.ones(2, 1, 1, 1), torch.tensor([0, 1]))
    before = {name: tensor.clone() for name, tensor in moments.state_dict().items()}
    with pytest.raises(StatisticsError, match=said):
        moments.update(torch.tensor([1.0, value, value]).view(3, 1, 1, 1), torch.tensor([0, 1, 1]))
    big = ExactMoments(2, (1, 1, 1))
    big.update(torch.full((1, 1, 1, 1), 0.8 * MAX_ENERGY**0.5), torch.tensor([0]))
    moments.merge(big)
    with pytest.raises(StatisticsError, match="too large or too many"):
        moments.merge(big)
    assert moments.state_dict()["count"].tolist() == [2, 1] and before["count"].tolist() == [1, 1]


def test_a_build_that_was_killed_keeps_sums_and_members(tmp_path: Path) -> None:
    class Fatal(Pictures):
        def __getitem__(self, index: int) -> Any:
            if index == 20:
                raise KeyboardInterrupt("killed")
            return super().__getitem__(index)

    noted, others = tmp_path / "noted", tmp_path / "others"
    info = tiny_info()
    options: dict[str, Any] = {"info": info, "batch_size": 3, "chunk_size": 7}
    with pytest.raises(KeyboardInterrupt):
        build_tiny(
            tiny_model(),
            tmp_path / "a",
            Fatal(range(30)),
            work=tmp_path / "w",
            sums=KeptSums(noted),
            **options,
        )
    assert not noted.exists() and (tmp_path / "membership.key").exists()
    chunks = set((tmp_path / "w").glob("*"))
    resumed = build_tiny(
        tiny_model(),
        tmp_path / "a",
        Pictures(range(30)),
        work=tmp_path / "w",
        sums=KeptSums(noted),
        **options,
    )
    assert chunks < set((tmp_path / "w").glob("*")) and len(chunks) == 3
    whole = build_tiny(
        tiny_model(),
        tmp_path / "b",
        Pictures(range(30)),
        work=tmp_path / "v",
        sums=KeptSums(others),
        **options,
    )
    for name in (STATISTICS, MOMENTS):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert read_membership(noted) == read_membership(others)
    found = read_membership(noted)
    assert len(found.members) == 30 and {one.label for one in found.members} == {0, 1, 2}
    assert found.moments == whole.sha256[MOMENTS] and found.forgotten == ()


def test_chunks_without_sums_are_others(tmp_path: Path) -> None:
    for number, sums in enumerate(
        (None, KeptSums(), KeptSums(tmp_path / "noted"), KeptSums(tmp_path / "other"))
    ):
        build_tiny(tiny_model(), tmp_path / str(number), info=tiny_info(), work=tmp_path / "work", sums=sums)
        assert len(list((tmp_path / "work").glob("*.json"))) == min(number + 1, 3)


def test_a_build_without_sums_removes_those_of_earlier_statistics(tmp_path: Path) -> None:
    kept = build(tmp_path / "out", range(30), sums=KeptSums())
    assert MOMENTS in kept.sha256
    assert MOMENTS not in build(tmp_path / "out", range(30)).sha256
    assert not (tmp_path / "out" / MOMENTS).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"key": "k"}, "goes with membership"),
        ({"membership": "m", "key": "m"}, "is the file of the membership"),
    ],
)
def test_places_that_do_not_go_together_are_refused(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        KeptSums(**arguments)


def test_a_membership_lies_outside_the_artifact_and_replaces_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for sums, said in (
        (KeptSums(tmp_path / "out" / "m"), "is in the folder of the artifact"),
        (KeptSums(tmp_path / "m", tmp_path / "out" / "k"), "is in the folder of the artifact"),
        (KeptSums(tmp_path / "mine"), "is there, and is none"),
        (KeptSums(tmp_path / "m", tmp_path / "mine"), "holds no key"),
    ):
        with pytest.raises(ConfigError, match=said):
            build_tiny(tiny_model(), tmp_path / "out", info=tiny_info(), sums=sums)
    sampled = tiny_info(inversion=InversionConfig(TIMESTEPS, 10, latent="sample"))
    with pytest.raises(ConfigError, match="build with latent='mean'"):
        build_tiny(tiny_model(), tmp_path / "out", info=sampled, sums=KeptSums(tmp_path / "m"))
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="moments must be true or false"):
        BuildSettings(moments="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "change", "error", "said"),
    [
        ("t400.sum", lambda values: values[:2], ArtifactFormatError, r"t400.sum is I64 \[2,"),
        ("t400.squares", lambda values: values.double(), ArtifactFormatError, "t400.squares is F64"),
        ("count", lambda values: values + 1, ArtifactFormatError, "counts are not those"),
        ("t400.squares", lambda values: -values, StatisticsError, "no latents have such sums"),
        ("t400.squares", lambda values: values // 1000, StatisticsError, "no latents have such sums"),
        ("t200.sum", lambda values: values * 0 + 2**63 - 1, StatisticsError, "no latents have such sums"),
        ("t200.squares", lambda values: values * 0 + 2**63 - 1, StatisticsError, "no latents have such sums"),
    ],
)
def test_sums_that_are_damaged_are_refused(
    name: str, change: Any, error: type[Exception], said: str, tmp_path: Path
) -> None:
    artifact = build(tmp_path / "kept", range(30), sums=KeptSums())
    tensors = load_file(artifact.folder / MOMENTS)
    (artifact.folder / MOMENTS).unlink()
    save_file({**tensors, name: change(tensors[name]).contiguous()}, artifact.folder / MOMENTS)
    refresh_checksum(artifact.folder, MOMENTS)
    with pytest.raises(error, match=said):
        Artifact.load(artifact.folder).verify()
    (artifact.folder / MOMENTS).write_bytes(b"0" * 30_000_000)
    refresh_checksum(artifact.folder, MOMENTS)
    with pytest.raises(ArtifactFormatError, match="accepted: at most"):
        Artifact.load(artifact.folder).sums()


def test_shapes_that_do_not_go_together_are_refused() -> None:
    count, sums = torch.ones(2, 1, dtype=torch.int64), torch.zeros(2, 1, 1, 1, 1, dtype=torch.int64)
    squares = torch.zeros(2, 1, 1, 1, dtype=torch.int64)
    with pytest.raises(StatisticsError, match="accepted for 2 classes of 1 modes"):
        LatentSums(count, {400: sums}, {400: squares[:1]})
    with pytest.raises(StatisticsError, match="no integers of 64 bits"):
        LatentSums(count, {400: sums.double()}, {400: squares})


def test_the_membership_of_another_artifact_is_not_replaced(tmp_path: Path) -> None:
    noted = KeptSums(tmp_path / "noted")
    first = build(tmp_path / "first", range(30), sums=noted)
    before = (tmp_path / "noted").read_bytes()
    with pytest.raises(ConfigError, match="is that of another artifact"):
        build(tmp_path / "second", range(30, 60), sums=noted)
    assert (tmp_path / "noted").read_bytes() == before and not (tmp_path / "second" / STATISTICS).exists()
    again = build(tmp_path / "first", range(36), sums=noted)
    assert read_membership(tmp_path / "noted").moments == again.sha256[MOMENTS] != first.sha256[MOMENTS]


def test_precision_and_rule_of_shrinkage_are_noted(tmp_path: Path) -> None:
    build(tmp_path / "auto", range(30), sums=KeptSums(tmp_path / "m"), shrinkage="auto")
    build(tmp_path / "share", range(30), sums=KeptSums(tmp_path / "n"), shrinkage=0.25)
    found, other = read_membership(tmp_path / "m"), read_membership(tmp_path / "n")
    assert (found.torch_dtype, found.shrinkage, other.shrinkage) == ("float32", "auto", 0.25)


def test_chunks_that_say_which_images_they_are_of_are_private(tmp_path: Path) -> None:
    build(tmp_path / "open", range(30), sums=KeptSums())
    build(tmp_path / "noted", range(30), sums=KeptSums(tmp_path / "m"))
    for name, is_private in (("open", False), ("noted", True)):
        chunks = list((tmp_path / f"{name}.chunks").glob("*.safetensors"))
        assert len(chunks) == 5
        for chunk in chunks:
            assert is_membership(chunk) == is_private
            assert (stat.S_IMODE(chunk.stat().st_mode) == 0o600) == is_private


def test_more_images_than_sums_have_room_for_are_refused_before_any_is_inverted() -> None:
    check_room([2**26, 5])
    with pytest.raises(StatisticsError, match=r"a class has 67,108,865 images: .*too large or too many"):
        check_room([5, 2**26 + 1])
    moments = ExactMoments(1, (1, 1, 1))
    moments.update(torch.full((1, 1, 1, 1), 4000.0), torch.tensor([0]))  # 16 million, in units of 2^-36
    assert float(moments.squares) == 16e6 * 2**36
