"""Sizes of batches: what memory holds, on a device that is imitated; and that order and numbers stay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.dataset import batches
from d3hr_datasets.dataset.batches import BatchSize, Finish, UnfinishedGroup, in_batches
from d3hr_datasets.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PICTURE = Image.new("L", (1, 1))


def _groups(*sizes: int) -> list[UnfinishedGroup]:
    return [
        UnfinishedGroup(label, 10 + label, torch.full((size, 1), float(label)), [])
        for label, size in enumerate(sizes)
    ]


class _Decoder:
    """Makes 1 x 1 images that hold the number of their class, of no more latents than memory is for."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []
        self.order: list[str] = []

    def __call__(self, latents: torch.Tensor, labels: torch.Tensor, batch_size: int) -> Finish:
        number = len(self.sizes)
        self.sizes.append(len(latents))
        if batch_size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert torch.equal(latents[:, 0] + 10, labels.float())
        self.order.append(f"start {number}")

        def finish() -> list[Image.Image]:
            self.order.append(f"finish {number}")
            return [Image.new("L", (1, 1), int(label)) for label in labels]

        return finish


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("sizes", [(3, 3, 3), (1, 7, 0, 2), (70,), (1,) * 70, (5, 64, 5), (0, 0, 4, 0), ()])
def test_groups_come_in_order_with_their_own_images(sizes: tuple[int, ...], ahead: bool) -> None:
    decoder = _Decoder(100)
    found = list(in_batches(_groups(*sizes), decoder, BatchSize(4, CPU), ahead=ahead))
    assert [group.label for group in found] == list(range(len(sizes)))
    for group, size in zip(found, sizes, strict=True):
        assert [image.getpixel((0, 0)) for image in group.images] == [10 + group.label] * size
    assert set(decoder.sizes[:-1]) <= {4}


def test_a_batch_is_finished_before_the_next_one_unless_the_device_works_on_its_own() -> None:
    decoder = _Decoder(100)
    list(in_batches(_groups(3, 3), decoder, BatchSize(2, CPU)))
    assert decoder.order == ["start 0", "finish 0", "start 1", "finish 1", "start 2", "finish 2"]
    decoder = _Decoder(100)
    list(in_batches(_groups(3, 3), decoder, BatchSize(2, CPU), ahead=True))
    assert decoder.order == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]


def test_a_group_is_whole_only_when_its_last_batch_is_finished() -> None:
    """Of six images, four are started while none is finished."""
    decoder = _Decoder(100)
    for group in in_batches(_groups(6, 1), decoder, BatchSize(2, CPU), ahead=True):
        assert len(group.images) == (6, 1)[group.label]


def test_batches_are_started_together_and_halved_one_by_one() -> None:
    decoder = _Decoder(1)
    found = list(in_batches(_groups(4, 4, 4), decoder, BatchSize(2, CPU), together=3))
    assert decoder.sizes == [6, 3, 3, 3, 3] and [len(group.images) for group in found] == [4, 4, 4]


def test_no_batch_holds_the_locks_of_too_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_CLASSES", 3)
    decoder = _Decoder(100)
    assert len(list(in_batches(_groups(*[1] * 7), decoder, BatchSize(50, CPU)))) == 7
    assert decoder.sizes == [3, 3, 1]


def test_what_is_made_comes_after_what_is_there() -> None:
    group = UnfinishedGroup(0, 10, torch.zeros(3, 1), [PICTURE, PICTURE])
    [found] = in_batches([group], _Decoder(100), BatchSize(1, CPU))
    assert [image.getpixel((0, 0)) for image in found.images] == [0, 0, 10, 10, 10]


def test_batches_are_halved_until_they_fit(caplog: pytest.LogCaptureFixture) -> None:
    decoder = _Decoder(3)
    assert len(list(in_batches(_groups(4, 4, 4), decoder, BatchSize(8, CPU)))) == 3
    assert decoder.sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    assert "batches have 2 images now" in caplog.text


def test_an_image_that_does_not_fit_alone_is_an_error() -> None:
    for offloaded in (False, True):
        with pytest.raises(ConfigError, match="not even one image at a time") as error:
            list(in_batches(_groups(2), _Decoder(0), BatchSize(2, CPU, cpu_offload=offloaded)))
        assert ("cpu_offload=True" in str(error.value)) != offloaded


@pytest.mark.parametrize(
    ("free", "given", "expected"),
    [
        (1000 * 2**20, None, 250),  # 2 MiB an image, half of what is free
        (10**13, None, batches.MAX_BATCH_SIZE),
        (2**20, None, BATCH_SIZE),  # what has just fitted is kept
        (10**13, 32, 32),
    ],
)
def test_cuda_gets_what_is_free(
    free: int, given: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = SimpleNamespace(
        memory_allocated=lambda device: 2**20,
        memory_reserved=lambda device: 2**20,
        max_memory_allocated=lambda device: (1 + 2 * BATCH_SIZE) * 2**20,
        mem_get_info=lambda device: (free, 10**14),
    )
    monkeypatch.setattr(torch, "cuda", fake)
    size = BatchSize(given, CUDA)
    for _ in range(2):
        size.run(lambda most: [PICTURE] * most)
    assert size.value == expected
    assert BatchSize(None, CPU).value == BATCH_SIZE
