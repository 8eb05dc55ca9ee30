"""Builds to a stated precision: a class stops when its means are known well enough.

In: labels, and the moments of what was inverted so far. Out: which images are inverted, round by round.

The images of a class are taken in a random order of its own, which the seed of the inversion decides. All
classes begin with as many as the means of a class take at least, 1 / tolerance^2. After a round the first
process decides which classes have had enough, and writes it beside the chunks, where the others read it.
Those that have not are given a quarter more than they had, until they have no images left. So the rounds, and
their chunks, are the same for any number of processes, and a build that was killed goes on from the chunks of
all rounds.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.tolerance import SHOWN, Tolerance, check_share, least_images
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.chunks import Moments
from d3hr_datasets.build.joined_processes import wait_for_processes
from d3hr_datasets.build.merged_moments import add_chunk, class_groups, empty_moments
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.io.untrusted_files import read_json
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.sums import ordered_sum
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.records import Images

logger = logging.getLogger(__name__)

PARTS_PER_ROUND = 4  # after a round, at most a fourth of what a class has had is inverted before it is asked


def check_stoppable(tolerance: float | None, images: Images) -> None:
    """Check that images of each class can be taken in a random order.

    Raises:
        ConfigError: The tolerance is none, the images are a stream, or their labels are not known before they
            are read.
    """
    if tolerance is None:
        return
    check_share(tolerance)
    if not images.has_random_access:
        raise ConfigError(
            f"tolerance={tolerance:g} takes the images of a class in random order, which a stream cannot "
            "give; build from a copy on disk (without --streaming), or of all images (without --tolerance)"
        )
    if images.labels is None:
        raise ConfigError(
            f"tolerance={tolerance:g} takes the images class by class, and their labels are known only when "
            "they are read; give the data set `targets`, a label for each image, or build of all images"
        )


class EarlyStop:
    """Decides which images a build inverts.

    Args:
        build: Of all images.
        tolerance: Largest standard error, as a share of the spread of a class: see `has_enough`.
        processes: Of the build.
    """

    def __init__(self, build: ChunkBuilder, tolerance: float, processes: Any) -> None:
        self._build = build
        self._tolerance = tolerance
        self._processes = processes
        self._orders = random_orders(build.images, build.info)
        self._open = [*range(len(self._orders))]
        self._taken = 0
        self._parts: list[tuple[ChunkBuilder, list[int]]] = []  # of each round, and the labels, ascending

    def rounds(self) -> Iterator[ChunkBuilder]:
        """Yield what makes the chunks of each round; all processes have made them when the next is asked for.

        Raises:
            UnreadableImageError: As `ChunkBuilder.chunks`.
        """
        build = self._build
        for number, numbers in enumerate(iter(self._next_round, [])):
            name = f"{build.prefix.name}.tolerance-{self._tolerance}.round-{number:02d}"
            part = build.of_some(numbers, build.prefix.with_name(name))
            yield part
            labels = build.images.labels or ()
            self._parts.append((part, [labels[one] for one in numbers]))
            self._decide(part)

    def found(self) -> Tolerance:
        """Return what the artifact says of it, when all rounds have been made."""
        if self._open:
            classes = self._build.info.classes
            logger.warning(
                "all images of %d of %d classes did not suffice for --tolerance %g: %s%s",
                len(self._open),
                len(classes),
                self._tolerance,
                ", ".join(classes[label] for label in self._open[:SHOWN]),
                ", ..." if len(self._open) > SHOWN else "",
            )
        return Tolerance(self._tolerance, sum(map(len, self._orders)), tuple(self._open))

    def _next_round(self) -> list[int]:
        """Return the numbers of the images of the next round, class by class; none where it is over.

        Those of a class are in the order in which they are stored, which is how they are read fastest.
        """
        more = _next_part(self._taken) or first_round(self._tolerance, self._build.info)
        start, self._taken = self._taken, self._taken + more
        return [number for label in self._open for number in sorted(self._orders[label][start : self._taken])]

    def _decide(self, part: ChunkBuilder) -> None:
        """Leave those classes open that have not had enough."""
        path = part.prefix.with_name(f"{part.prefix.name}.json")
        if self._processes.is_main_process:
            short = [label for group in class_groups(part.info) for label in self._short(group)]
            replace_text(path, json.dumps({"classes that go on": short}))
        wait_for_processes(self._processes)
        self._open = _read_decision(path)

    def _short(self, group: range) -> list[int]:
        """Return those open classes of a group that have not had enough.

        Their moments are added up anew from the chunks of all rounds, which class by class are few, so that
        those of a group alone are in memory.
        """
        info = self._build.info
        asked = [label for label in self._open if label in group]
        if not asked:
            return []
        moments = empty_moments(self._build.moments, group, info)
        for part, labels in self._parts:
            begin, end = bisect_left(labels, asked[0]), bisect_right(labels, asked[-1])
            for chunk in part.chunks_of(range(begin, end)):
                add_chunk(moments, chunk, group, info)
        tolerance, modes = self._tolerance, info.num_modes
        return [one for one in asked if not has_enough(moments, one - group.start, modes, tolerance)]


def expected_images(images: Images, info: ArtifactInfo, tolerance: float | None) -> tuple[int, int]:
    """Return how many images are inverted at least and at most, where none is unreadable.

    Without a tolerance these are all. Without modes both are the same; how many the means of modes take, only
    the images tell.
    """
    if tolerance is None:
        return images.num_images or 0, images.num_images or 0
    first = first_round(tolerance, info)
    sizes = Counter(images.labels or ())
    least = sum(min(size, first) for size in sizes.values())
    return least, least if info.num_modes == 1 else sum(sizes.values())


def count_rounds(images: Images, info: ArtifactInfo, tolerance: float) -> int:
    """Return how many rounds there are at most, where none is unreadable; each ends in a chunk of its own."""
    taken, rounds = first_round(tolerance, info), 1
    largest = 0 if info.num_modes == 1 else max(Counter(images.labels or ()).values(), default=0)
    while taken < largest:
        taken, rounds = taken + _next_part(taken), rounds + 1
    return rounds


def random_orders(images: Images, info: ArtifactInfo) -> list[list[int]]:
    """Return the numbers of the images of each class in a random order, the same for the same seed."""
    of_class: list[list[int]] = [[] for _ in info.classes]
    for number, label in enumerate(images.labels or ()):
        of_class[label].append(number)
    orders = []
    for label, numbers in enumerate(of_class):
        generator = torch.Generator().manual_seed(derive_seed(info.inversion.seed, label, "tolerance"))
        places = torch.randperm(len(numbers), generator=generator).tolist()
        orders.append([numbers[place] for place in places])
    return orders


@neutral()
def has_enough(moments: Mapping[float, Moments], label: int, num_modes: int, tolerance: float) -> bool:
    """Say whether the means of a class are known to a tolerance, at every timestep that is stored.

    Of n images of a class, with v the unbiased variance of an element of the latents (divisor n - 1):

    - the spread of the class is S = sqrt(mean of v over elements);
    - the standard error of its mean is sqrt(mean of v / n over elements) = S / sqrt(n);
    - that of the means of its M modes is W sqrt(M / n), with W the spread within modes (divisor n - M, all
      modes taken together, as `ClassModes.variance`): the root mean square of W / sqrt(n_m) over modes,
      weighted by the images n_m of each.

    A class has had enough when both are at most `tolerance` x S, and no mode is without an image. So without
    modes n >= 1 / tolerance^2 is all that counts. It is the error against what infinitely many images would
    give: against the mean of the N images that there are, it is less by the factor sqrt(1 - n / N).

    Args:
        moments: By timestep; row `label` x `num_modes` + mode is a mode's.
        label: Class label.
        num_modes: Modes of each class, 1 where there are none.
        tolerance: Share of the spread.
    """
    rows = slice(label * num_modes, (label + 1) * num_modes)
    count = next(iter(moments.values())).count[rows]
    number = int(count.sum())
    if number < least_images(tolerance):
        return False
    if num_modes == 1:
        return True
    if number <= num_modes or bool((count == 0).any()):
        return False
    return all(_mode_error(one, rows) <= tolerance**2 for one in moments.values())


def _mode_error(moments: Moments, rows: slice) -> float:
    """Return the square of the standard error of the means of modes, as a share of the spread."""
    count, means, deviations = moments.deviations(rows)
    number, modes = int(count.sum()), len(count)
    shares = (count / number).view(-1, *[1] * (means.dim() - 1))
    between = (means - ordered_sum(means * shares, 0)).square() * shares * number
    within = float(ordered_sum(deviations.flatten(), 0))
    total = within + float(ordered_sum(between.flatten(), 0))
    if total == 0:  # all images are one
        return 0.0
    return modes / number * (within / (number - modes)) / (total / (number - 1))


def first_round(tolerance: float, info: ArtifactInfo) -> int:
    """Return the images of a class in its first round: as many as any class takes."""
    return max(least_images(tolerance), info.num_modes + 1)


def _next_part(taken: int) -> int:
    """Return how many images of a class are inverted in a round, where it has had so many."""
    return -(-taken // PARTS_PER_ROUND)


def _read_decision(path: Path) -> list[int]:
    """Return the classes that go on, as the first process has written them."""
    found: list[int] = read_json(path)["classes that go on"]
    return found
