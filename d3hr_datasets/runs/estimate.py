"""What a run would cost, said before it starts: passes of the network, time, memory and disk, with units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d3hr_datasets.runs.measured_cost import MeasuredCost


@dataclass(frozen=True)
class Estimate:
    """What a run would cost.

    Args:
        done: What is done with images, as "inverted".
        num_images: Images there are.
        least_images: Images that it is done with, at least.
        most_images: The same at most: more only where a build stops early and has modes.
        passes_per_image: How often the network runs for an image; guidance takes two of them.
        measured: What a few batches cost.
        processes: That share the images.
        seconds_per_image: With everything that is not done meanwhile; of one process.
        seconds_before: That one process would take for what is done before, which processes share, too.
        bytes_beside: Memory that the first process takes beside batches, at its peak.
        disk_bytes: What is written, by what it is.
        largest_share: Of the process that has most to do; None where all have the same.
        not_counted: What the time is without.
    """

    done: str
    num_images: int
    least_images: int
    most_images: int
    passes_per_image: int
    measured: MeasuredCost
    processes: int
    seconds_per_image: float
    seconds_before: float = 0.0
    bytes_beside: int = 0
    disk_bytes: Mapping[str, int] = field(default_factory=dict)
    largest_share: float | None = None
    not_counted: str = ""

    @property
    def seconds(self) -> tuple[float, float]:
        """Seconds at least and at most."""
        share = 1 / self.processes if self.largest_share is None else self.largest_share
        least, most = (
            share * (self.seconds_before + self.seconds_per_image * number)
            for number in (self.least_images, self.most_images)
        )
        return least, most

    @property
    def process_bytes(self) -> int | None:
        """Peak of the memory of the first process; the others take less."""
        measured = self.measured.process_bytes
        return None if measured is None else measured + self.bytes_beside

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; pairs are at least and at most."""
        images = [self.least_images, self.most_images]
        return {
            "num_images": self.num_images,
            "images": images,
            "forward_passes_per_image": self.passes_per_image,
            "forward_passes": [self.passes_per_image * number for number in images],
            "processes": self.processes,
            "device": self.measured.device,
            "batch_size": self.measured.largest_batch,
            "measured_batch_size": self.measured.batch_size,
            "seconds_per_image": self.seconds_per_image,
            "hours": [seconds / 3600 for seconds in self.seconds],
            "process_bytes": self.process_bytes,
            "gpu_bytes": self.measured.gpu_bytes,
            "gpu_total_bytes": self.measured.gpu_total_bytes,
            "disk_bytes": dict(self.disk_bytes),
        }

    def rows(self) -> dict[str, str]:
        """Return the same in words, by name."""
        measured, images = self.measured, (self.least_images, self.most_images)
        passes = [self.passes_per_image * number for number in images]
        without = f"; {self.not_counted}" if self.not_counted else ""
        fits = f"batches of {measured.largest_batch:,}"
        rows = {
            "images": f"{_range(*images)} of {self.num_images:,} are {self.done}",
            "forward passes": f"{self.passes_per_image:,} per image, {_range(*passes)} in all",
            "time": f"{_times(*self.seconds)} by {self.processes} process"
            f"{'' if self.processes == 1 else 'es'}; {1000 * self.seconds_per_image:,.1f} ms per image, "
            f"measured in batches of {measured.batch_size:,} on {measured.device}{without}",
            "memory": "not known on this system"
            if self.process_bytes is None
            else f"{_size(self.process_bytes)} of the process at its peak, with {fits}",
        }
        if measured.gpu_bytes is not None and measured.gpu_total_bytes is not None:
            rows["GPU memory"] = (
                f"{_size(measured.gpu_bytes)} of {_size(measured.gpu_total_bytes)} at its peak, with {fits}"
            )
            if measured.gpu_bytes > measured.gpu_total_bytes:
                rows["GPU memory"] += (
                    "; that is more than there is: give a smaller --batch-size, or --cpu-offload"
                )
        parts = ", ".join(f"{_size(number)} {what}" for what, number in self.disk_bytes.items())
        rows["disk"] = f"{_size(sum(self.disk_bytes.values()))}: {parts}"
        return rows


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _times(least: float, most: float) -> str:
    """Return a time, or two, in a unit that suits the longer one."""
    factor, unit = next(
        ((factor, unit) for factor, unit in ((3600, "hours"), (60, "minutes")) if most >= factor),
        (1, "seconds"),
    )
    found = [f"{seconds / factor:,.1f}" for seconds in (least, most)]
    return f"{found[0]} {unit}" if found[0] == found[1] else f"{found[0]} to {found[1]} {unit}"


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
