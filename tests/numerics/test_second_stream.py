"""Work beside other work: in order on the CPU; on CUDA, which is imitated, who waits for whom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from d3hr_datasets.numerics import second_stream
from d3hr_datasets.numerics.second_stream import SecondStream, to_device

CUDA = torch.device("cuda")


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_without_streams_work_is_done_before_it_returns(device: torch.device | None) -> None:
    done: list[str] = []

    def work() -> torch.Tensor:
        done.append("work")
        return made

    made, stream = torch.arange(3.0), SecondStream(device)
    wait = stream.start(work, made)
    assert done == ["work"] and not stream.is_there
    assert wait() is made
    assert to_device(made, torch.device("cpu")) is made


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Imitate CUDA on the CPU, and return what it was asked for, in order."""
    asked: list[str] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def wait_stream(self, other: str) -> None:
            asked.append(f"second waits for {other}")

    class Event:
        def record(self) -> None:
            asked.append("record")

        def synchronize(self) -> None:
            asked.append("host waits")

    @contextlib.contextmanager
    def inside(stream: Stream) -> Iterator[None]:
        asked.append("enter")
        yield
        asked.append("leave")

    fake = SimpleNamespace(
        Stream=Stream, Event=Event, stream=inside, current_stream=lambda device: "the stream in use"
    )

    def note(name: str, result: Any) -> None:
        def call(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            asked.append(f"{name} {tensor.tolist()}" + (" and go on" if options.get("non_blocking") else ""))
            return result(tensor, *arguments) if result else tensor

        monkeypatch.setattr(torch.Tensor, name, call)

    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(second_stream, "_pinned_like", torch.empty_like)
    copy = torch.Tensor.copy_
    note("copy_", copy)
    note("record_stream", None)
    note("pin_memory", None)
    note("to", None)
    return asked


def test_on_cuda_the_host_waits_only_when_it_asks_for_the_result(order: list[str]) -> None:
    stream, latents = SecondStream(CUDA), torch.tensor([1.0])

    def work() -> torch.Tensor:
        order.append("work")
        return torch.tensor([5.0])

    wait = stream.start(work, latents)
    assert stream.is_there
    assert order[:4] == [
        "second waits for the stream in use",  # or it would decode what is not denoised
        "record_stream [1.0]",  # or its memory would be used again meanwhile
        "enter",
        "work",
    ]
    assert order[4].endswith("and go on") and order[5:] == ["record", "leave"]
    assert wait().tolist() == [5.0]
    assert order[6:] == ["leave", "host waits"]


def test_copies_to_cuda_come_from_pinned_memory(order: list[str]) -> None:
    to_device(torch.tensor([1.0]), CUDA)
    assert order == ["pin_memory [1.0]", "to [1.0] and go on"]
