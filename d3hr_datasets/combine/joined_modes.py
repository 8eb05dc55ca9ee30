"""The modes of a class in several parts -> those of their union: joined, or side by side.

In: the sums of parts, whose modes each know their own images only. Out: sums with one number of modes. Which
modes become one depends on what the modes are, and not on the order of the parts. Sums are added in whole
numbers, so that class Gaussians stay exact however modes are joined, and so do the sums of each mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from d3hr_datasets.artifact.info import MAX_MODES
from d3hr_datasets.artifact.latent_sums import MAX_SQUARES, LatentSums
from d3hr_datasets.build.clustering import join_points
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.errors import CombineError, ConfigError, StatisticsError
from d3hr_datasets.numerics.torch_settings import neutral

Part = tuple[LatentSums, Sequence[int]]  # and the label that each of its classes gets


@neutral()
def add_up(
    parts: Sequence[Part], names: Sequence[str], num_modes: int | None, keep_modes: bool
) -> LatentSums:
    """Return the sums of all parts.

    Args:
        parts: Sums, and the new labels of their classes.
        names: Of the classes, by their new labels.
        num_modes: Modes of each class; by default as many as each part has.
        keep_modes: Keep all modes of a class side by side instead.

    Raises:
        CombineError: Parts have different numbers of modes and none is asked for, or a class has fewer modes
            than are asked for, or, side by side, not as many as the others.
        ConfigError: `num_modes` is out of range, or goes with `keep_modes`.
        StatisticsError: A sum of squares gets too large.
        MissingExtraError: scikit-learn is not installed, which joins modes.
    """
    wanted = _wanted_modes(parts, names, num_modes, keep_modes)
    count = torch.zeros(len(names), wanted, dtype=torch.int64)
    sums, squares = {}, {}
    for time, of_first in parts[0][0].sums.items():
        shape = of_first.shape[2:]
        sums[time] = torch.zeros(len(names), wanted, *shape, dtype=torch.int64)
        squares[time] = torch.zeros(len(names), *shape, dtype=torch.int64)
        for part, labels in parts:
            squares[time].index_add_(0, torch.tensor(labels), part.squares[time])
            if (squares[time] > MAX_SQUARES).any():
                raise StatisticsError(
                    f"the squares of the latents of a class at {time} add up to more than exact sums hold; "
                    "merge fewer parts"
                )
    rows: list[list[tuple[LatentSums, int]]] = [[] for _ in names]
    for part, labels in parts:
        for row, label in enumerate(labels):
            rows[label].append((part, row))
    for label, name in enumerate(names):
        numbers, modes = _modes_of(rows[label])
        assigned = _assign(numbers, modes, wanted, name)
        count[label].index_add_(0, assigned, numbers)
        for time, of_modes in modes.items():
            sums[time][label].index_add_(0, assigned, of_modes)
    return LatentSums(count, sums, squares)


def _wanted_modes(
    parts: Sequence[Part], names: Sequence[str], num_modes: int | None, keep_modes: bool
) -> int:
    """Return the number of modes of the union."""
    if num_modes is not None:
        check_int("num_modes", num_modes, 1, MAX_MODES)
        if keep_modes:
            raise ConfigError(
                f"num_modes={num_modes} joins modes, and keep_modes=True joins none; give one of them"
            )
    number = [0] * len(names)
    for part, labels in parts:
        for label in labels:
            number[label] += part.num_modes
    there = dict(zip(names, number, strict=True))
    least, most = min(there, key=there.__getitem__), max(there, key=there.__getitem__)
    if keep_modes:
        if there[least] != there[most] or there[most] > MAX_MODES:
            raise CombineError(
                f"side by side, class {least!r} has {there[least]} modes and class {most!r} {there[most]}; "
                f"accepted: the same number for each, at most {MAX_MODES:,}. Join them with num_modes="
                f"{min(there[least], MAX_MODES)} instead"
            )
        return there[most]
    if num_modes is None:
        found = sorted({part.num_modes for part, _ in parts})
        if len(found) > 1:
            raise CombineError(
                f"the parts have {' and '.join(map(str, found))} modes per class; say how many the whole "
                f"has: num_modes={found[0]}, or another number up to {there[least]}"
            )
        return found[0]
    if there[least] < num_modes:
        raise CombineError(
            f"num_modes={num_modes} asks for more modes than class {least!r} has in all parts, "
            f"{there[least]}; modes can be joined, not split: ask for {there[least]} at most"
        )
    return num_modes


def _modes_of(rows: Sequence[tuple[LatentSums, int]]) -> tuple[torch.Tensor, dict[float, torch.Tensor]]:
    """Return count (P,) and sums (P, C, H, W) by time of all modes of a class, in an order of their own.

    Args:
        rows: Sums of parts that have the class, and its label there.
    """
    counts = torch.cat([part.count[row] for part, row in rows])
    sums = {time: torch.cat([part.sums[time][row] for part, row in rows]) for time in rows[0][0].sums}

    def bits(place: int) -> bytes:
        return b"".join(values[place].numpy().tobytes() for values in (counts, *sums.values()))

    order = torch.tensor(sorted(range(len(counts)), key=bits))
    return counts[order], {time: values[order] for time, values in sums.items()}


def _assign(counts: torch.Tensor, sums: dict[float, torch.Tensor], num_modes: int, name: str) -> torch.Tensor:
    """Return which new mode each mode (P,) becomes part of, numbered as they come."""
    if num_modes == 1:
        return torch.zeros_like(counts)
    if num_modes == len(counts):
        return torch.arange(len(counts))
    number = counts.double()
    points = torch.cat([values.flatten(1).double() / number[:, None] for values in sums.values()], dim=1)
    if len(points.unique(dim=0)) < num_modes:
        raise CombineError(
            f"class {name!r} has fewer than {num_modes} modes that differ in all parts; ask for fewer"
        )
    found: dict[int, int] = {}
    joined = join_points(points, number, num_modes).tolist()
    return torch.tensor([found.setdefault(mode, len(found)) for mode in joined])
