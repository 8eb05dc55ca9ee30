"""Images are read while the model runs, also those of the chunk that comes next."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.reading_ahead import ReadAhead, Relay
from d3hr_datasets.sources.records import ImageRecord
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.tiny import TinyImages, tiny_info, tiny_model

SECONDS = 20.0  # until something that should happen is taken not to


class NotedImages(TinyImages):
    """Images that note which were read, so that somebody may wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.was_read = [threading.Event() for _ in range(len(self))]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.was_read[index].set()
        return super().__getitem__(index)


def _builder(images: Any, prefix: Path, model: Any = None) -> ChunkBuilder:
    model = tiny_model() if model is None else model
    return ChunkBuilder(as_images(images), model, tiny_info(), prefix, 2, 4, num_readers=1)


@pytest.mark.parametrize(("rank", "following"), [(0, 8), (1, None)])
def test_the_next_chunk_is_begun_while_the_model_is_at_the_last_batch_of_one(
    rank: int, following: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, model = NotedImages(), tiny_model()
    invert, calls = model.invert, 0

    def waiting(*arguments: Any) -> dict[float, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2 and following is not None:  # the last batch of the first chunk
            assert images.was_read[following].wait(SECONDS)
        return invert(*arguments)

    monkeypatch.setattr(model, "invert", waiting)
    found = [*_builder(images, tmp_path / "c", model).chunks(rank, 2)]
    assert len(found) == (1 if following is None else 2)
    alone = [*_builder(TinyImages(), tmp_path / "alone").chunks(rank, 2)]
    for here, there in zip(found, alone, strict=True):
        assert here.pixels == there.pixels and here.rows.tolist() == there.rows.tolist()


class OneAtATime(TinyImages):
    """Images that note whether two were read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.were_alone = threading.Lock(), True

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.were_alone &= self.lock.acquire(blocking=False)
        time.sleep(0.01)
        if self.lock.locked():
            self.lock.release()
        return super().__getitem__(index)


def test_one_reader_reads_one_image_at_a_time(tmp_path: Path) -> None:
    images = OneAtATime()
    assert len(list(_builder(images, tmp_path / "c").chunks(0, 1))) == 3
    assert images.were_alone


def test_nothing_is_read_any_more_when_a_build_is_left(tmp_path: Path) -> None:
    images, before = NotedImages(), threading.active_count()
    chunks = _builder(images, tmp_path / "c").chunks(0, 1)
    next(iter(chunks))
    assert images.was_read[4].wait(SECONDS)  # of the chunk that comes next
    chunks.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() == before


def test_a_chunk_that_is_there_is_not_begun(tmp_path: Path) -> None:
    list(_builder(TinyImages(), tmp_path / "c").chunks_of(range(4, 8)))
    images = NotedImages()
    assert len(list(_builder(images, tmp_path / "c").chunks(0, 1))) == 3
    assert [event.is_set() for event in images.was_read] == [True] * 4 + [False] * 4 + [True] * 4


def _records(images: TinyImages, numbers: range) -> list[ImageRecord]:
    found = as_images(images)
    return [next(found.records(0, number)) for number in numbers]


def test_what_was_begun_of_another_chunk_or_of_other_batches_is_dropped() -> None:
    images = TinyImages()
    first, second = _records(images, range(4)), _records(images, range(4, 8))
    for start, size in ((4, 2), (8, 2), (4, 3)):  # the same; another chunk; other batches
        relay, before = Relay(tiny_info(), 1), threading.active_count()
        assert [len(batch) for batch in relay.batches(0, first, 2, lambda: (4, second))] == [2, 2]
        batches = [*relay.batches(start, second, size, lambda: None)]
        assert [len(batch) for batch in batches] == ([3, 1] if size == 3 else [2, 2])
        found = [future.result()[1] for batch in batches for _, future in batch]
        assert found == [images[number][1] for number in range(4, 8)]
        assert threading.active_count() == before


def test_nothing_has_no_batches() -> None:
    assert list(ReadAhead([], 4, tiny_info(), 1).batches()) == []
