"""What a run would cost: how batches are measured, and what is said of them."""

from __future__ import annotations

import dataclasses
import time
from types import SimpleNamespace

import pytest
import torch

from d3hr_datasets.runs import measured_cost
from d3hr_datasets.runs.estimate import Estimate
from d3hr_datasets.runs.measured_cost import MeasuredCost, measure_cost

CPU = torch.device("cpu")


def test_batches_grow_to_that_of_the_work() -> None:
    sizes: list[int] = []
    found = measure_cost(sizes.append, 11, CPU)
    assert sizes == [1, 1, 2, 2, 4, 8, 11, 11, 11]
    assert (found.batch_size, found.largest_batch, found.device) == (11, 11, "cpu")
    assert found.process_bytes is None or found.process_bytes > 1e7
    assert found.gpu_bytes is None and found.gpu_total_bytes is None


def test_slow_work_is_measured_on_few_images() -> None:
    sizes: list[int] = []
    found = measure_cost(sizes.append, 256, CPU, patience=0.0)
    assert sizes == [1, 1, 2, 2]
    assert (found.batch_size, found.largest_batch) == (2, 256)


def test_compiling_is_not_what_images_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute for one image, and another for more of them; the memory of a batch is known all the same."""
    now, sizes = {"seconds": 0.0}, list[int]()

    def work(size: int) -> None:
        is_known = any(min(size, 2) == min(seen, 2) for seen in sizes)
        now["seconds"] += 0.01 * size + (0 if is_known else 60)
        sizes.append(size)

    monkeypatch.setattr(measured_cost, "time", SimpleNamespace(perf_counter=lambda: now["seconds"]))
    monkeypatch.setattr(measured_cost, "_memory", lambda: 1000 + 50 * (sizes[-1] if sizes else 0))
    monkeypatch.setattr(measured_cost, "_peak", lambda: 0)
    for patience in (30.0, 0.0):
        sizes.clear()
        found = measure_cost(work, 256, CPU, patience)
        assert found.seconds_per_image == pytest.approx(0.01)
        assert (found.batch_size, found.process_bytes) == (256 if patience else 2, 1000 + 50 * 256)


def test_memory_of_batches_shows_where_more_was_needed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"seconds": 0.0, "size": 0}

    def work(size: int) -> None:
        now["seconds"] += size
        now["size"] = size

    monkeypatch.setattr(measured_cost, "time", SimpleNamespace(perf_counter=lambda: now["seconds"]))
    monkeypatch.setattr(measured_cost, "_memory", lambda: 100 + 50 * int(now["size"]))
    monkeypatch.setattr(measured_cost, "_peak", lambda: 10_000)  # as of loading a model
    found = measure_cost(work, 1000, CPU, patience=20.0)
    assert found.batch_size == 8 and found.process_bytes == 100 + 50 * 1000
    now["size"] = 0
    assert measure_cost(work, 4, CPU).process_bytes == 10_000


def test_time_is_that_of_an_image_in_a_large_batch() -> None:
    found = measure_cost(lambda size: time.sleep(0.02), 4, CPU)
    assert 0.004 < found.seconds_per_image < 0.02


def test_batches_that_do_not_fit_are_not_waited_for() -> None:
    def work(size: int) -> None:
        if size > 4:
            raise torch.OutOfMemoryError("no room")

    assert measure_cost(work, 64, CPU).largest_batch == 4
    with pytest.raises(torch.OutOfMemoryError):
        measure_cost(lambda size: work(5), 64, CPU)


def test_memory_that_runs_out_is_what_the_work_says() -> None:
    def work(size: int) -> None:
        if size > 4:
            raise RuntimeError("MPS backend out of memory")

    def is_full(error: RuntimeError) -> bool:
        return "out of memory" in str(error)

    assert measure_cost(work, 64, CPU, is_full=is_full).largest_batch == 4
    with pytest.raises(torch.OutOfMemoryError, match="MPS"):
        measure_cost(lambda size: work(5), 64, CPU, is_full=is_full)
    with pytest.raises(RuntimeError, match="MPS"):
        measure_cost(work, 64, CPU)


MEASURED = MeasuredCost(8, 256, 0.5, "cuda:0", 2_000_000_000, 3_000_000_000, 8_000_000_000)
ESTIMATE = Estimate(
    "inverted", 60_000, 11_120, 60_000, 11, MEASURED, 2, 0.6, 60.0, 500_000_000, {"statistics": 4_000_000}
)


def test_all_is_said_with_its_unit() -> None:
    rows = ESTIMATE.rows()
    assert rows["images"] == "11,120 to 60,000 of 60,000 are inverted"
    assert rows["forward passes"] == "11 per image, 122,320 to 660,000 in all"
    assert rows["time"] == (
        "0.9 to 5.0 hours by 2 processes; 600.0 ms per image, measured in batches of 8 on cuda:0"
    )
    assert rows["memory"] == "2.5 GB of the process at its peak, with batches of 256"
    assert rows["GPU memory"] == "3.0 GB of 8.0 GB at its peak, with batches of 256"
    assert rows["disk"] == "4.0 MB: 4.0 MB statistics"
    values = ESTIMATE.to_dict()
    assert values["forward_passes"] == [122_320, 660_000] and values["process_bytes"] == 2_500_000_000
    assert values["hours"] == pytest.approx([(30 + 0.3 * 11_120) / 3600, (30 + 0.3 * 60_000) / 3600])


def test_one_number_is_said_once() -> None:
    measured = dataclasses.replace(MEASURED, process_bytes=None, gpu_bytes=9_000_000_000)
    rows = dataclasses.replace(ESTIMATE, measured=measured, least_images=60_000, processes=1).rows()
    assert rows["images"] == "60,000 of 60,000 are inverted"
    assert rows["time"].startswith("10.0 hours by 1 process;")
    assert rows["memory"] == "not known on this system"
    assert "that is more than there is: give a smaller --batch-size" in rows["GPU memory"]


def test_unequal_shares_count() -> None:
    rows = dataclasses.replace(
        ESTIMATE, least_images=60_000, largest_share=0.75, not_counted="without the rest"
    )
    assert rows.rows()["time"].endswith(" on cuda:0; without the rest")
    assert rows.seconds == pytest.approx([0.75 * (60 + 0.6 * 60_000)] * 2)
