"""Augmented views, and how processes share them."""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets.students.views import (
    EpochBatches,
    ShufflePatches,
    TensorImages,
    Views,
    dsa_augment,
    evaluation_transform,
    train_transform,
)
from tests.support.tiny_students import protocol


def test_views_depend_on_seed_epoch_and_index_only(images: TensorImages) -> None:
    settings = protocol(crop_scale=[0.5, 1.0], flip=True, color_jitter=0.4, random_crop=1)
    views, batches = Views(images, train_transform(settings)), EpochBatches(10, 4, seed=3)
    state = torch.random.get_rng_state()
    first = [[views[item][0] for item in batch] for batch in batches]
    torch.rand(7)
    again = [[views[item][0] for item in batch] for batch in batches]
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    torch.random.set_rng_state(state)
    items = [item for batch in batches for item in batch]
    views[items[0]]
    assert torch.equal(torch.random.get_rng_state(), state)
    batches.epoch = 1
    assert [item for batch in batches for item in batch] != items
    assert first[0][0].shape == (1, 12, 12) and first[0][0].min() >= 0 and first[0][0].max() <= 1


@pytest.mark.parametrize(("count", "world"), [(10, 2), (5, 4), (1, 3)])
def test_processes_share_every_batch(count: int, world: int) -> None:
    whole = list(EpochBatches(count, 4, seed=0))
    shares = [list(EpochBatches(count, 4, seed=0, rank=rank, world_size=world)) for rank in range(world)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(parts)  # none waits for another
        assert {item for part in parts for item in part} == set(batch)


def test_patches_are_moved_and_kept() -> None:
    image = torch.arange(16.0).view(1, 4, 4)
    torch.manual_seed(0)
    shuffled = [ShufflePatches(2)(image) for _ in range(8)]
    patches = {tuple(image[0, y : y + 2, x : x + 2].flatten().tolist()) for y in (0, 2) for x in (0, 2)}
    for result in shuffled:
        found = {tuple(result[0, y : y + 2, x : x + 2].flatten().tolist()) for y in (0, 2) for x in (0, 2)}
        assert found == patches
    assert any(not torch.equal(result, image) for result in shuffled)


def test_dsa_draws_all_augmentations_and_keeps_shapes() -> None:
    torch.manual_seed(0)
    batch = torch.randn(3, 3, 8, 8)
    results = [dsa_augment(batch) for _ in range(40)]
    assert all(result.shape == batch.shape and result.isfinite().all() for result in results)
    assert any((result == 0).sum() > 3 * 3 * 8 for result in results)  # cutout
    assert any(torch.equal(result[0], batch[0].flip(2)) for result in results)  # flip


def test_shared_dsa_is_the_same_for_batches_of_any_size_and_has_gradients() -> None:
    image = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = 0
    for seed in range(40):
        results = []
        for number in (1, 3):
            torch.manual_seed(seed)
            batch = image.repeat(number, 1, 1, 1).requires_grad_()
            results.append(dsa_augment(batch, shared=True))
            results[-1].sum().backward()
            assert batch.grad is not None and batch.grad.isfinite().all() and batch.grad.any()
        torch.testing.assert_close(results[1], results[0].expand(3, -1, -1, -1))
        changed += not torch.equal(results[0], image)
    assert changed > 30


def test_evaluation_resizes_and_crops() -> None:
    settings = protocol(image_size=8, resize=12)
    view = evaluation_transform(settings)(torch.full((1, 24, 12), 51, dtype=torch.uint8))
    assert view.shape == (1, 8, 8)
    assert view.unique().tolist() == pytest.approx([0.2])
