"""Processes of a build share its chunks, and make what slower ones have not come to."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.work_shares import left_over, share
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import UnreadableImageError
from d3hr_datasets.sources.records import IndexedImages

NUM_IMAGES, CHUNK = 10, 2


@pytest.mark.parametrize("num_processes", [1, 2, 3, 7])
def test_shares_are_all_chunks_once(num_processes: int) -> None:
    shares = [list(share(23, 5, rank, num_processes)) for rank in range(num_processes)]
    assert sorted(itertools.chain.from_iterable(shares)) == [0, 5, 10, 15, 20]
    assert shares[0][0] == 0


def test_what_is_left_over_is_asked_for_when_its_turn_comes() -> None:
    finished = {2}
    found = left_over(9, 1, 0, 2, lambda start: start in finished)  # others have 1, 3, 5 and 7
    assert next(found) == 7
    finished.add(5)  # meanwhile by its owner
    assert list(found) == [3, 1]
    assert list(left_over(9, 1, 0, 1, lambda start: False)) == []
    begins = [next(left_over(40, 1, rank, 4, lambda start: False)) for rank in range(4)]
    assert len(set(begins)) == 4 and all(start % 4 != rank for rank, start in enumerate(begins))


Make = Callable[..., ChunkBuilder]


@pytest.fixture
def make(tiny_artifact: Path, tmp_path: Path) -> Make:
    """Return what makes a builder of some images, as each process has one."""
    info = dataclasses.replace(Artifact.load(tiny_artifact).info, num_modes=1)
    model = LatentDiffusion.from_pretrained(tiny_artifact / "model", device="cpu")
    picture = Image.new(info.image_mode, (info.image_size, info.image_size), 128)

    def read(number: int) -> Any:
        return picture, number % 3

    def made(read: Callable[[int], Any] = read, **options: Any) -> ChunkBuilder:
        images = IndexedImages(NUM_IMAGES, read)
        return ChunkBuilder(images, model, info, tmp_path / "chunk", 1, CHUNK, num_readers=1, **options)

    return made


def _files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("chunk-*.safetensors")}


def test_one_makes_what_others_have_not_come_to(make: Make, tmp_path: Path) -> None:
    slow = make().chunks(0, 2)
    next(slow)
    list(make().chunks(1, 2))
    before = _files(tmp_path)
    assert len(before) == 3
    make().make_left_over(1, 2)
    after = _files(tmp_path)
    assert len(after) == 5 and all(after[name] == before[name] for name in before)
    assert len(list(slow)) == 2  # found
    assert _files(tmp_path) == after


def test_what_its_owner_finishes_meanwhile_is_given_up(make: Make, tmp_path: Path) -> None:
    helper, owner = make(), make()
    batches: list[int] = []

    def advance(number: int) -> None:
        batches.append(number)
        if batches.count(1) == 1:  # in the middle of the first chunk of two batches
            list(owner.chunks(0, 2))

    list(helper.chunks(1, 2))
    helper.make_left_over(1, 2, advance)
    assert batches.count(1) == 1, "it went on with what was made"
    assert len(_files(tmp_path)) == 5


def test_what_a_helper_finishes_meanwhile_is_given_up_by_its_owner(make: Make, tmp_path: Path) -> None:
    helper, owner = make(), make()
    batches: list[int] = []

    def advance(number: int) -> None:
        batches.append(number)
        if number == 1 == batches.count(1):  # in the middle of its first chunk of two batches
            list(helper.chunks(1, 2))
            helper.make_left_over(1, 2)

    found = list(owner.chunks(0, 2, advance))
    assert batches.count(1) == 1, "it went on with what was made"
    assert (len(_files(tmp_path)), len(found)) == (5, 3)
    (tmp_path / "chunk-000000000.safetensors").write_bytes(b"damaged")
    again = list(make().chunks(0, 2, batches.append))
    assert batches.count(1) == 3  # made to its end, though it has a file
    assert [chunk.identity for chunk in again] == [chunk.identity for chunk in found]


def test_images_that_cannot_be_read_count_whoever_finds_them(make: Make) -> None:
    def read(number: int) -> Any:
        raise OSError("damaged")

    build = make(read, skip_unreadable=5)
    assert len(list(build.chunks(1, 2))) == 2
    with pytest.raises(UnreadableImageError, match="more than 5 images"):
        build.make_left_over(1, 2)
