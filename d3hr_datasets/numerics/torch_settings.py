"""The settings of the process that asks for numbers -> settings under which the same numbers come out.

PyTorch keeps autocast, default dtype, default device, gradient modes and the precision of products for the
thread or the process, so whatever a training script has set would reach into what is computed here, and
images written to the cache under it would stay. `neutral` is a context manager, and a decorator, that puts
them aside and restores them. Every public function that computes runs in one.

What is left alone: `use_deterministic_algorithms`, which can only make results more alike, and the number of
threads, on which sampling does not depend (`sums`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")


class _Recording(threading.local):
    """Whether the computation that a thread is in records gradients."""

    is_on = False


_RECORDING = _Recording()


@contextlib.contextmanager
def neutral(*, grad: bool | None = False, full_float32: bool = False) -> Iterator[None]:
    """Compute outside the caller's autocast, default dtype, default device, gradient and inference mode.

    Default dtype and precision belong to the whole process. They are touched only where they are not what
    they should be, and other threads see the change meanwhile.

    Args:
        grad: Whether gradients are recorded. None: as in the neutral computation that this one is a part of;
            a caller from outside gets none.
        full_float32: Also compute products of float32 in float32, whatever TF32 or bfloat16 is allowed.
    """
    before = _RECORDING.is_on
    recorded = before and torch.is_grad_enabled() if grad is None else grad
    with contextlib.ExitStack() as stack:
        for device_type in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        if torch.get_default_dtype() != torch.float32 or _DTYPE.held:
            stack.enter_context(_DTYPE)
        if full_float32:
            stack.enter_context(_PRECISION)
        if not _default_device_is_cpu():
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(recorded))
        stack.callback(setattr, _RECORDING, "is_on", before)
        _RECORDING.is_on = recorded
        yield


def _default_device_is_cpu() -> bool:
    # Not torch.get_default_device, which needs the device to work.
    try:
        return torch.empty(0).device.type == "cpu"
    except (RuntimeError, AssertionError):  # CUDA that is not there, or not in a forked process
        return False


class _Shared:
    """A setting of the whole process, put aside by the first thread that enters and restored by the last."""

    def __init__(self, put_aside: Callable[[], Callable[[], None]]) -> None:
        self.held = 0
        self._put_aside = put_aside
        self._lock = threading.Lock()
        self._restore: Callable[[], None] = lambda: None

    def __enter__(self) -> None:
        with self._lock:
            if self.held == 0:
                self._restore = self._put_aside()
            self.held += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.held -= 1
            if self.held == 0:
                self._restore()


def _float32_by_default() -> Callable[[], None]:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    return lambda: torch.set_default_dtype(dtype)


def _ieee_products() -> Callable[[], None]:
    backends: Any = torch.backends
    places = [backends.cudnn.conv, backends.mkldnn.conv]
    legacy = None
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has set backends one by one
        places += [backends.cuda.matmul, backends.mkldnn.matmul]
    before = [place.fp32_precision for place in places]
    if legacy not in (None, "highest"):
        torch.set_float32_matmul_precision("highest")
    for place in places:
        place.fp32_precision = "ieee"

    def restore() -> None:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
        if legacy not in (None, "highest"):
            torch.set_float32_matmul_precision(legacy)

    return restore


_DTYPE = _Shared(_float32_by_default)
_PRECISION = _Shared(_ieee_products)
