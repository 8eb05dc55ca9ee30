"""The progress bar of a build: one for all processes, on stderr of the first.

It counts the images of finished chunks, whoever finished them, and those of the chunk at hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

SECONDS = 1.0  # between two looks at the finished chunks


class BuildProgress:
    """A bar with images per second and the time that is left.

    Args:
        finished: Returns the number of images in finished chunks.
        total: Number of images, or None where nobody knows it.
        enabled: Show it.
    """

    def __init__(self, finished: Callable[[], int], total: int | None, enabled: bool) -> None:
        self._finished = finished
        self._enabled = enabled
        self._current = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._bar = tqdm(
            total=total,
            initial=finished() if enabled else 0,
            desc="inverting",
            unit=" images",
            smoothing=0,
            disable=not enabled,
        )

    def __enter__(self) -> BuildProgress:
        if self._enabled:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._enabled:
            self._thread.join()
            self._show()
        self._bar.close()

    def advance(self, number: int) -> None:
        """Count images of the chunk at hand; 0 starts a chunk."""
        self._current = self._current + number if number else 0

    def _follow(self) -> None:
        while not self._stop.wait(SECONDS):
            self._show()

    def _show(self) -> None:
        number: float = self._finished() + self._current
        if self._bar.total is not None:
            number = min(number, self._bar.total)
        if number > self._bar.n:
            self._bar.update(number - self._bar.n)
        else:
            self._bar.refresh()
