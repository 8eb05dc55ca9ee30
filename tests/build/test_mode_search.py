"""The search for modes: on any number of processes, of streams, killed, damaged, and in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from d3hr_datasets.build import mode_count, mode_search
from d3hr_datasets.build.build import check_images
from d3hr_datasets.build.clustering import find_centroids
from d3hr_datasets.build.mode_latents import ModeLatents, read_labels, read_latents
from d3hr_datasets.build.mode_points import ModePoints
from d3hr_datasets.build.mode_search import find_modes
from d3hr_datasets.build.reading_ahead import read_record
from d3hr_datasets.errors import BuildError, StatisticsError, UnreadableImageError
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.tampering import truncate
from tests.support.tiny import TinyImages, tiny_info

NUMBER = 30  # images; chunks of 4 and batches of 3


class Encoder:
    """What the search runs of a model: latents of (3, 4, 4) that are the images themselves, but smaller."""

    def __init__(self, fatal: int | None = None) -> None:
        self.fatal = fatal
        self.encoded = 0

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.encoded += len(images)
        if self.fatal is not None and self.encoded > self.fatal:
            raise KeyboardInterrupt("killed")
        return images[:, :, ::4, ::4].repeat(1, 3, 1, 1)


class Pictures(TinyImages):
    """Thirty images of three classes."""

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label = super().__getitem__(index % 12)
        return image.point(lambda value: (value + 7 * index) % 256), label


class Labelled(Pictures):
    targets = tuple(index % 3 for index in range(NUMBER))


class Stream:
    """The same images in shards, in the same order; some cannot be read."""

    def __init__(self, num_shards: int = 1, num_images: int | None = None, unreadable: bool = False) -> None:
        self.num_shards = num_shards
        self.num_images = num_images
        self.unreadable = unreadable

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        size = NUMBER // self.num_shards
        for index in range(size * shard + start, size * (shard + 1)):
            yield ImageRecord(str(index), str(index), partial(self._read, index))

    def _read(self, index: int) -> tuple[Any, int]:
        if self.unreadable and index == 5:
            raise OSError("broken")
        return Pictures()[index]


class Process:
    """One of several processes, which are threads."""

    def __init__(self, rank: int, barrier: threading.Barrier) -> None:
        self.process_index = rank
        self.num_processes = barrier.parties
        self.is_main_process = rank == 0
        self.wait_for_everyone = partial(barrier.wait, 60)


def latents_of(
    folder: Path, source: Any = None, encoder: Any = None, num_modes: int = 3, skip: int = 0
) -> ModeLatents:
    folder.mkdir(exist_ok=True)
    images, model = as_images(Pictures() if source is None else source), cast(Any, encoder or Encoder())
    info = tiny_info(num_modes=num_modes)
    return ModeLatents(images, model, info, folder / "key", 3, 4, skip, 2)


def search(folder: Path, *options: Any, processes: int = 1, **more: Any) -> torch.Tensor:
    """Return what all of some processes find, which is the same."""
    barrier = threading.Barrier(processes)
    each = [latents_of(folder, *options, **more) for _ in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(find_modes, each, [Process(rank, barrier) for rank in range(processes)]))
    assert all(torch.equal(found[0], one) for one in found)
    return found[0]


def test_any_number_of_processes_and_any_source_find_the_same(tmp_path: Path) -> None:
    expected = search(tmp_path / "one")
    assert expected.shape == (3, 3, 3, 4, 4)
    records = list(as_images(Pictures()).records(0, 0))[::3]  # of class 0
    images = torch.stack([read_record(record, tiny_info())[0] for record in records])
    found = find_centroids(Encoder().encode(images).flatten(1), torch.ones(10), 3)
    assert torch.equal(expected[0].flatten(1), found)  # few images: k-means of all of them
    for name, source, processes in (
        ("two", Pictures(), 2),
        ("four", Labelled(), 4),
        ("stream", Stream(), 1),
        ("stream of two", Stream(), 2),
        ("shards", Stream(3, NUMBER), 1),
        ("shards of two", Stream(3), 2),
        ("shards of five", Stream(3), 5),
    ):
        assert torch.equal(search(tmp_path / name, source, processes=processes), expected), name
        assert [path.name for path in (tmp_path / name).iterdir()] == ["key-modes.safetensors"], name


@pytest.mark.parametrize(("source", "total"), [(Pictures(), f"/{NUMBER} "), (Stream(), "")])
def test_the_search_says_how_far_it_is(
    source: Any, total: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = Process(0, threading.Barrier(1))
    find_modes(latents_of(tmp_path / "shown", source), alone, progress=True)
    said = capfd.readouterr().err
    assert f"{NUMBER}{total}" in said.split("looking for modes: ")[-1]
    assert "3/3 " in said.split("finding modes: ")[-1]
    find_modes(latents_of(tmp_path / "silent", source), alone)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("source", [Pictures(), Stream(), Stream(2)], ids=["random", "stream", "shards"])
def test_killed_search_goes_on(source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = search(tmp_path / "whole", source)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        search(tmp_path / "killed", source, Encoder(fatal=13))
    encoder = Encoder()
    with monkeypatch.context() as patch:
        calls = iter((False, True, True))
        made = ModePoints.centroids
        patch.setattr(ModePoints, "centroids", lambda self: 1 / 0 if next(calls) else made(self))
        with pytest.raises(ZeroDivisionError):
            search(tmp_path / "killed", source, encoder)
    assert encoder.encoded == NUMBER - 12
    again, fitted = Encoder(), []

    def noted(self: ModePoints) -> torch.Tensor:
        fitted.append(1)
        return made(self)

    monkeypatch.setattr(ModePoints, "centroids", noted)
    assert torch.equal(search(tmp_path / "killed", source, again), expected)
    assert (again.encoded, len(fitted)) == (0, 2)
    assert torch.equal(search(tmp_path / "killed", source, again), expected)
    assert (again.encoded, len(fitted)) == (0, 2)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_files_are_made_anew(share: float, tmp_path: Path) -> None:
    expected = search(tmp_path / "whole")
    latents = latents_of(tmp_path / "damaged")
    latents.make(0, 1)
    files = latents.files()
    assert len(files) == 8
    truncate(files[2], share)
    for read in (read_labels, partial(read_latents, class_labels=[0])):
        with pytest.raises(BuildError, match=r"was damaged .* run the build again"):
            read(files[2])
    encoder = Encoder()
    assert torch.equal(search(tmp_path / "damaged", None, encoder), expected)
    assert encoder.encoded == 4


def test_damaged_centroids_of_a_class_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, made = search(tmp_path / "whole"), ModePoints.centroids
    for share in (None, 0.5):
        with monkeypatch.context() as patch:
            patch.setattr(mode_search, "_collect", lambda *given: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                search(tmp_path / "killed")
        files = sorted((tmp_path / "killed").glob("*.centroids.safetensors"))
        assert len(files) == 3
        if share is not None:
            truncate(files[1], share)
    fitted: list[int] = []

    def noted(self: ModePoints) -> torch.Tensor:
        fitted.append(1)
        return made(self)

    monkeypatch.setattr(ModePoints, "centroids", noted)
    assert torch.equal(search(tmp_path / "killed"), expected)
    assert len(fitted) == 1


def test_few_classes_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, held = search(tmp_path / "all"), []

    class Counted(ModePoints):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            held.append(1)

        def centroids(self) -> torch.Tensor:
            held.append(-1)
            return super().centroids()

    monkeypatch.setattr(mode_search, "ModePoints", Counted)
    monkeypatch.setattr(mode_search, "GROUP_BYTES", 2 * 4 * 80 * 3 * 48)
    assert torch.equal(search(tmp_path / "few"), expected)
    assert held == [1, 1, -1, -1, 1, -1]


def test_a_class_of_fewer_images_than_modes_is_named(tmp_path: Path) -> None:
    for processes in (1, 2):
        with pytest.raises(StatisticsError, match=r"class label 0 \(ant\) has 10 images to find 11 modes"):
            search(tmp_path / str(processes), num_modes=11, processes=processes)


def test_classes_that_are_known_to_be_too_small_are_refused_before_anything_is_read() -> None:
    check_images(as_images(Labelled()), tiny_info(num_modes=9))
    said = r"class label 0 \(ant\) has 10 images to find 10 modes in, and needs more images than modes"
    with pytest.raises(StatisticsError, match=said):
        check_images(as_images(Labelled()), tiny_info(num_modes=10))


def test_images_that_cannot_be_read_are_left_out_where_they_may_be(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="broken"):
        search(tmp_path / "none", Stream(unreadable=True))
    encoder = Encoder()
    search(tmp_path / "some", Stream(unreadable=True), encoder, skip=1)
    assert encoder.encoded == NUMBER - 1


def test_modes_are_sought_in_so_many_random_images_of_each_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mode_count, "IMAGES_FOR_MODES", 4)
    monkeypatch.setattr(mode_count, "IMAGES_PER_CENTROID", 1)
    chosen = mode_count.images_for_modes(as_images(Labelled()), tiny_info(num_modes=3))
    assert sorted(index % 3 for index in chosen) == [0] * 4 + [1] * 4 + [2] * 4
    unknown = mode_count.images_for_modes(as_images(Pictures()), tiny_info(num_modes=5))
    assert len(set(unknown)) == 15 and unknown == sorted(unknown)
    found = []
    for processes in (1, 2):
        encoders = Encoder()
        source = Stream(2, NUMBER)
        found.append(search(tmp_path / str(processes), source, encoders, num_modes=2, processes=processes))
        assert 6 <= encoders.encoded <= 18  # each with a chance of 12 in 30
    assert torch.equal(*found)


class Unequal(Pictures):
    """Of thirty images, three are of the last class."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return super().__getitem__(index)[0], 2 if index in {3, 17, 28} else index % 2


class UnequalStream(Stream):
    def _read(self, index: int) -> tuple[Any, int]:
        return Unequal()[index]


def test_a_small_class_of_which_few_were_drawn_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mode_count, "IMAGES_FOR_MODES", 3)
    monkeypatch.setattr(mode_count, "IMAGES_PER_CENTROID", 1)
    for name, source in (("stream", UnequalStream(1, NUMBER)), ("shards", UnequalStream(2, NUMBER))):
        alone = Encoder()
        found = search(tmp_path / name, source, alone, num_modes=2)
        assert alone.encoded < NUMBER  # of the other classes those alone that were drawn
        together = search(tmp_path / f"{name} of three", source, num_modes=2, processes=3)
        assert torch.equal(together, found)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            search(tmp_path / f"{name} killed", source, Encoder(alone.encoded - 1), num_modes=2)
        assert torch.equal(search(tmp_path / f"{name} killed", source, num_modes=2), found)
    unknown = Encoder()
    found = search(tmp_path / "unknown", Unequal(), unknown, num_modes=2)
    assert unknown.encoded < NUMBER
    assert torch.equal(search(tmp_path / "unknown of two", Unequal(), num_modes=2, processes=2), found)
    said = r"class label 2 \(cat\) has 3 images to find 3 modes in \(all its images .* --modes 2 at most"
    with pytest.raises(StatisticsError, match=said):
        search(tmp_path / "more", UnequalStream(1, NUMBER), num_modes=3)
