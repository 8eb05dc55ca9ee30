""""""

from __future__ import annotations

import pytest
import torch

from d3hr_datasets import ClassGaussians, RunningMoments
from d3hr_datasets.errors import StatisticsError

NUM_CLASSES, SHAPE = 3, (2, 3, 3)


def _data(count: int = 40, offset: float = 0.0, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64) * scale + offset
    labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
    labels[: 2 * NUM_CLASSES] = torch.arange(2 * NUM_CLASSES) % NUM_CLASSES
    return latents, labels


def _check(
    gaussians: ClassGaussians, latents: torch.Tensor, labels: torch.Tensor, rtol: float = 1e-9
) -> None:
    """Compare with the mean and the unbiased variance of all latents of a class at once."""
    for label in range(NUM_CLASSES):
        members = latents[labels == label].double()
        variance, mean = torch.var_mean(members, dim=0, correction=1)
        assert int(gaussians.count[label]) == len(members)
        torch.testing.assert_close(gaussians.mean[label], mean, rtol=rtol, atol=1e-12)
        torch.testing.assert_close(gaussians.variance[label], variance, rtol=rtol, atol=1e-14)


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 33], [39, 1], [13, 13, 14], [2, 3, 5, 8, 13, 9]])
def test_batches_of_any_size_give_the_moments_of_all(sizes: list[int]) -> None:
    latents, labels = _data()
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    for batch, batch_labels in zip(latents.split(sizes), labels.split(sizes), strict=True):
        moments.update(batch, batch_labels)
    _check(moments.gaussians(), latents, labels)


@pytest.mark.parametrize("seed", range(4))
def test_parts_merge_in_any_split_and_order(seed: int) -> None:
    latents, labels = _data()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(latents), generator=generator)
    parts = []
    for indices in order.split([1, 6, 0, 20, 13]):
        part = RunningMoments(NUM_CLASSES, SHAPE)
        part.update(latents[indices], labels[indices])
        parts.append(part)
    while len(parts) > 1:  # as a tree
        left, right = parts.pop(0), parts.pop(0)
        left.merge(right)
        parts.append(left)
    _check(parts[0].gaussians(), latents, labels)


def test_one_class_at_a_time_gives_the_same() -> None:
    latents, labels = _data()
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    for label in (2, 0, 1):
        moments.update(latents[labels == label], labels[labels == label])
    _check(moments.gaussians(), latents, labels)


def test_large_means_do_not_swallow_small_variances() -> None:
    latents, labels = _data(offset=1e4, scale=1e-2)
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    for batch, batch_labels in zip(latents.split(3), labels.split(3), strict=True):
        moments.update(batch, batch_labels)
    _check(moments.gaussians(), latents, labels, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_summed_in_double(dtype: torch.dtype) -> None:
    latents, labels = _data(offset=3.0)
    latents = latents.to(dtype)
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    for batch, batch_labels in zip(latents.split(4), labels.split(4), strict=True):
        moments.update(batch, batch_labels)
    _check(moments.gaussians(), latents, labels)


def test_merging_nothing_changes_nothing() -> None:
    latents, labels = _data()
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    moments.merge(RunningMoments(NUM_CLASSES, SHAPE))
    moments.update(latents, labels)
    moments.merge(RunningMoments(NUM_CLASSES, SHAPE))
    _check(moments.gaussians(), latents, labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_latents_that_are_not_finite_are_refused_whole(value: float) -> None:
    latents, labels = _data()
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    moments.update(latents[:30], labels[:30])
    before = {name: tensor.clone() for name, tensor in moments.state_dict().items()}
    bad = latents[30:].clone()
    bad[4, 1, 2, 0] = value
    with pytest.raises(StatisticsError, match=rf"latent 4 .*class label {int(labels[34])}\b"):
        moments.update(bad, labels[30:])
    for name, tensor in moments.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("labels", "few"), [([0, 0, 1, 2, 2], r"\[1\]"), ([1, 1], r"\[0, 2\]"), ([], r"\[0, 1, 2\]")]
)
def test_classes_of_fewer_than_two_images_are_named(labels: list[int], few: str) -> None:
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    moments.update(torch.zeros(len(labels), *SHAPE), torch.tensor(labels, dtype=torch.int64))
    with pytest.raises(StatisticsError, match=few):
        moments.gaussians()


def test_state_goes_on_where_it_was_saved() -> None:
    latents, labels = _data()
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    moments.update(latents[:17], labels[:17])
    state = {name: tensor.clone() for name, tensor in moments.state_dict().items()}
    again = RunningMoments.from_state_dict(state)
    again.update(latents[17:], labels[17:])
    _check(again.gaussians(), latents, labels)


def test_gaussians_do_not_move_with_later_updates() -> None:
    latents, labels = _data()
    moments = RunningMoments(NUM_CLASSES, SHAPE)
    moments.update(latents[:20], labels[:20])
    gaussians = moments.gaussians()
    moments.update(latents[20:], labels[20:])
    _check(gaussians, latents[:20], labels[:20])


def test_number_of_gaussians() -> None:
    gaussians = ClassGaussians(torch.zeros(5, *SHAPE), torch.ones(5, *SHAPE), torch.full((5,), 2))
    assert len(gaussians) == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mean", "variance"])
def test_gaussians_that_are_not_finite_name_the_class(name: str, value: float) -> None:
    tensors = {"mean": torch.zeros(3, *SHAPE), "variance": torch.ones(3, *SHAPE)}
    tensors[name][1, 0, 2, 2] = value
    with pytest.raises(StatisticsError, match=rf"{name} of class labels \[1\]"):
        ClassGaussians(**tensors, count=torch.full((3,), 2))


def test_negative_variances_are_refused() -> None:
    variance = torch.ones(3, *SHAPE)
    variance[2, 0, 0, 0] = -1e-6
    with pytest.raises(StatisticsError, match="negative"):
        ClassGaussians(torch.zeros(3, *SHAPE), variance, torch.full((3,), 2))


def test_zero_variances_are_accepted() -> None:
    ClassGaussians(torch.zeros(3, *SHAPE), torch.zeros(3, *SHAPE), torch.full((3,), 2))


@pytest.mark.parametrize("count", [0, 1, -1])
def test_gaussians_of_fewer_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(StatisticsError, match="fewer than two"):
        ClassGaussians(torch.zeros(3, *SHAPE), torch.ones(3, *SHAPE), torch.tensor([5, count, 5]))


@pytest.mark.parametrize(
    ("variance", "count"),
    [((3, 2, 3), (3,)), ((4, *SHAPE), (3,)), ((3, *SHAPE), (4,)), ((3, *SHAPE), (3, 1))],
)
def test_gaussians_of_other_shapes_are_refused(variance: tuple[int, ...], count: tuple[int, ...]) -> None:
    with pytest.raises(StatisticsError, match="must be"):
        ClassGaussians(torch.zeros(3, *SHAPE), torch.ones(variance), torch.full(count, 2))
