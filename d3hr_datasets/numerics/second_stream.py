"""Work on CUDA that the host does not wait for: beside other work of the device, and copies both ways.

A stream is a queue of work on a GPU; what is in two of them may run at the same time. Everywhere else all is
done at once and in order. What is computed is the same. Never run by this project, which had no GPU: tests
imitate one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from d3hr_datasets.numerics.torch_settings import neutral


@neutral(grad=None)
def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; on its way from the host to CUDA nobody waits for what runs there."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)  # of other memory the driver makes us wait
    return tensor.to(device)


class SecondStream:
    """A queue of CUDA beside the one in use.

    It is one object for many pieces of work: memory that one of them frees is kept for the next in the same
    stream.

    Args:
        device: Where work is done; what is not CUDA has no second stream. None never has one.
    """

    def __init__(self, device: torch.device | None) -> None:
        has_streams = device is not None and device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if has_streams else None

    @property
    def is_there(self) -> bool:
        """Whether work goes on beside other work, so that it pays to begin the next before this is done."""
        return self._stream is not None

    def start(self, work: Callable[[], torch.Tensor], *inputs: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin some work, after all that the device was asked for before.

        Args:
            work: Returns its result on the device.
            inputs: Tensors of the device that it reads, and that may be forgotten before it is done.

        Returns:
            Waits for the result, and returns it: in the host's memory if there is a second stream, else as
            `work` made it.
        """
        if self._stream is None:
            made = work()
            return lambda: made
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        for tensor in inputs:
            tensor.record_stream(self._stream)  # else what follows could have their memory meanwhile
        with torch.cuda.stream(self._stream):
            made = work()
            copy = _pinned_like(made)
            copy.copy_(made, non_blocking=True)
            done = torch.cuda.Event()
            done.record()

        def wait() -> torch.Tensor:
            done.synchronize()
            return copy

        return wait


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return memory of the host that a GPU copies into by itself."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
