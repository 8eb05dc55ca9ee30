"""Memory that a computation frees and wants back at once: glibc is told to keep it meanwhile.

By default glibc asks the system for every large tensor anew, and the system clears each page of it:
`recipes.evaluate.dataset` measures what that costs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
_KEEP = 2**30  # bytes
# The largest that glibc chooses by itself, by what a process frees; so most that train have them anyway.
_USUAL_MMAP, _USUAL_TRIM = 2**25, 2**26

_LOCK = threading.Lock()
_held = 0


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Have glibc keep freed memory in the process, and give it back to the system in the end.

    Nothing happens with another C library, nor where the user has chosen: by variables of the environment
    (`MALLOC_*`, `GLIBC_TUNABLES`, `LD_PRELOAD`). Results do not depend on it. The setting is one of the whole
    process. It cannot be asked for, so what it is set to in the end is the largest that glibc would choose.
    """
    libc = _glibc()
    if libc is not None:
        _enter(libc)
    try:
        yield
    finally:
        if libc is not None:
            _leave(libc)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library, if it is glibc with the settings that it starts with."""
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "LD_PRELOAD" in os.environ or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _enter(libc: ctypes.CDLL) -> None:
    global _held  # noqa: PLW0603 (of the process, as what it counts)
    with _LOCK:
        _held += 1
        if _held == 1:
            _set(libc.mallopt, _KEEP, _KEEP)


def _leave(libc: ctypes.CDLL) -> None:
    global _held  # noqa: PLW0603
    with _LOCK:
        _held -= 1
        if _held == 0:
            _set(libc.mallopt, _USUAL_MMAP, _USUAL_TRIM)
            libc.malloc_trim(0)


def _set(mallopt: Callable[[int, int], int], mmap: int, trim: int) -> None:
    """Set both; versions before 2.35 refuse more than the usual for the first, and keep what they have."""
    if not mallopt(_MMAP_THRESHOLD, mmap):
        mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
    mallopt(_TRIM_THRESHOLD, trim)
