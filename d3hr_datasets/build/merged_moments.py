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
        of_class = 16 * info.num_modes * math.prod(info.latent_shape) * len(info.inversion.timesteps)
        at_once = number if kind is ExactMoments else max(1, MERGE_BYTES // of_class)
        self._groups = [range(first, min(first + at_once, number)) for first in range(0, number, at_once)]
        self._count = torch.zeros(number * info.num_modes, dtype=torch.int64)
        self.total: dict[float, Any] = self._empty(self._groups[0])  # by timestep, of the first group

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the chunks, and add up the first group."""
        for chunk in self._chunks():
            self._count[chunk.rows] += chunk.moments[self._info.inversion.timesteps[0]].count
            self._add(self.total, chunk, self._groups[0])
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
        found = [self._of_group(group) for group in self._groups]
        if len(found) == 1:
            return found[0]
        times = self._info.inversion.timesteps
        gaussians = {time: ClassGaussians(*_joined([one[0][time] for one in found])) for time in times}
        modes = {time: ClassModes(*_joined([one[1][time] for one in found])) for time in found[0][1]}
        return gaussians, modes

    def _of_group(self, group: range) -> tuple[dict[float, ClassGaussians], dict[float, ClassModes]]:
        total, self.total = self.total, {}
        if not total:
            total = self._empty(group)
            for chunk in self._chunks():
                self._add(total, chunk, group)
        number = self._info.num_modes
        gaussians = {time: moments.grouped(number).gaussians() for time, moments in total.items()}
        modes = {time: moments.modes(number) for time, moments in total.items() if number > 1}
        return gaussians, modes if len(self._groups) == 1 else self._stored(modes)

    def _stored(self, modes: Mapping[float, ClassModes]) -> dict[float, ClassModes]:
        """Return modes whose means take no more memory than they will on the disk."""
        if self._info.dtype == "int8":  # whose steps are found for all classes together
            return dict(modes)
        dtype = getattr(torch, self._info.dtype)
        return {time: ClassModes(one.mean.to(dtype), one.variance, one.count) for time, one in modes.items()}

    def _empty(self, group: range) -> dict[float, Any]:
        rows = len(group) * self._info.num_modes
        return {time: self._kind(rows, self._info.latent_shape) for time in self._info.inversion.timesteps}

    def _add(self, total: Mapping[float, Any], chunk: Chunk, group: range) -> None:
        """Add what a chunk has of a group; its rows ascend."""
        bounds = torch.tensor([group.start, group.stop]) * self._info.num_modes
        begin, end = torch.searchsorted(chunk.rows, bounds).tolist()
        for time, moments in chunk.moments.items():
            own = {name: tensor[begin:end] for name, tensor in moments.state_dict().items()}
            total[time].merge(self._kind.from_state_dict(own), chunk.rows[begin:end] - int(bounds[0]))


def _joined(parts: list[Any]) -> list[torch.Tensor]:
    """Return the mean, the variance and the count of all parts."""
    return [torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "variance", "count")]
