"""The moments of all chunks put together: chunks in their order -> the statistics of an artifact.

A mode takes 16 bytes of each element and timestep while it is added up: 3.3 GB for 1,000 classes of 50 modes
and 4,096 elements. Where all classes take more than `MERGE_BYTES` they are added up in groups, and the chunks
are read once for each group. The statistics are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from d3hr_datasets.artifact.gaussians import ClassGaussians, ClassModes, check_class_counts, check_mode_counts
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.build.chunks import Chunk, Moments
from d3hr_datasets.build.exact_moments import ExactMoments
from d3hr_datasets.build.moments import RunningMoments
from d3hr_datasets.numerics.torch_settings import neutral

MERGE_BYTES = 2**30  # of the moments that are added up at a time, one class at least


class MergedMoments:
    """The moments of all classes. Iterate over it first, which yields the chunks.

    Args:
        chunks: Returns the chunks in their order, each time it is called.
        info: What is built.
        kind: Running moments, or exact ones, which are never added up in groups: all are stored.
    """

    @neutral()
    def __init__(
        self, chunks: Callable[[], Iterable[Chunk]], info: ArtifactInfo, kind: type[Moments] = RunningMoments
    ) -> None:
        self._chunks = chunks
        self._info = info
        self._kind = kind
        number = len(info.classes)
        self._groups = [range(number)] if kind is ExactMoments else class_groups(info)
        self._count = torch.zeros(number * info.num_modes, dtype=torch.int64)
        self.total: dict[float, Any] = self._empty(self._groups[0])  # by timestep, of the first group

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks, and add up the first group."""
        for chunk in self._chunks():
            self._count[chunk.rows] += chunk.moments[self._info.inversion.timesteps[0]].count
            add_chunk(self.total, chunk, self._groups[0], self._info)
            yield chunk

    @neutral()
    def statistics(self) -> tuple[dict[float, ClassGaussians], dict[float, ClassModes]]:
        """Return the Gaussians and the modes by timestep, the latter empty where a class is one row.

        In groups, the means of modes have the precision that the artifact stores. Call it once.

        Raises:
            StatisticsError: A class has fewer than two images, or a mode has none.
        """
        of_classes = self._count.view(-1, self._info.num_modes)
        check_class_counts(of_classes.sum(dim=1))
        if self._info.num_modes > 1:
            check_mode_counts(of_classes)
        if len(self._groups) == 1:
            return self._of_group(self._groups[0])
        times, number = self._info.inversion.timesteps, len(self._info.classes)
        gaussians: dict[float, dict[str, torch.Tensor]] = {time: {} for time in times}
        modes: dict[float, dict[str, torch.Tensor]] = {time: {} for time in times}
        for group in self._groups:
            found, of_modes = self._of_group(group)
            for time in times:
                _put(gaussians[time], found[time], group, number)
                if of_modes:
                    _put(modes[time], of_modes.pop(time), group, number)
        return (
            {time: ClassGaussians(**parts) for time, parts in gaussians.items()},
            {time: ClassModes(**parts) for time, parts in modes.items() if parts},
        )

    def _of_group(self, group: range) -> tuple[dict[float, ClassGaussians], dict[float, ClassModes]]:
        total, self.total = self.total, {}
        if not total:
            total = self._empty(group)
            for chunk in self._chunks():
                add_chunk(total, chunk, group, self._info)
        number = self._info.num_modes
        gaussians = {time: moments.grouped(number).gaussians() for time, moments in total.items()}
        modes = {time: moments.modes(number) for time, moments in total.items() if number > 1}
        return gaussians, modes if len(self._groups) == 1 else self._stored(modes)

    def _stored(self, modes: Mapping[float, ClassModes]) -> dict[float, ClassModes]:
        """Return modes whose means take no more memory than they will on the disk; float32 for int8."""
        dtype = torch.float32 if self._info.dtype == "int8" else getattr(torch, self._info.dtype)
        return {time: ClassModes(one.mean.to(dtype), one.variance, one.count) for time, one in modes.items()}

    def _empty(self, group: range) -> dict[float, Any]:
        return empty_moments(self._kind, group, self._info)


def class_groups(info: ArtifactInfo) -> list[range]:
    """Return the class labels in groups whose moments take `MERGE_BYTES` at most, one class at least."""
    number = len(info.classes)
    of_class = 16 * info.num_modes * math.prod(info.latent_shape) * len(info.inversion.timesteps)
    at_once = max(1, MERGE_BYTES // of_class)
    return [range(first, min(first + at_once, number)) for first in range(0, number, at_once)]


def empty_moments(kind: type[Moments], group: range, info: ArtifactInfo) -> dict[float, Any]:
    """Return moments of no image by timestep, of rows for the modes of a group of classes."""
    rows = len(group) * info.num_modes
    return {time: kind(rows, info.latent_shape) for time in info.inversion.timesteps}


def add_chunk(total: Mapping[float, Any], chunk: Chunk, group: range, info: ArtifactInfo) -> None:
    """Add what a chunk has of a group of classes to their moments by timestep; its rows ascend."""
    bounds = torch.tensor([group.start, group.stop]) * info.num_modes
    begin, end = torch.searchsorted(chunk.rows, bounds).tolist()
    for time, moments in chunk.moments.items():
        own = {name: tensor[begin:end] for name, tensor in moments.state_dict().items()}
        total[time].merge(moments.from_state_dict(own), chunk.rows[begin:end] - int(bounds[0]))


def _put(
    whole: dict[str, torch.Tensor], part: ClassGaussians | ClassModes, group: range, number: int
) -> None:
    """Put mean, variance and count of a group into those of all classes, of which there is one copy."""
    for name in ("mean", "variance", "count"):
        tensor: torch.Tensor = getattr(part, name)
        if name not in whole:
            whole[name] = tensor.new_empty(number, *tensor.shape[1:])
        whole[name][group.start : group.stop] = tensor
