"""How far generating is: images that are made -> images a second, and the time that is left, on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS = 20.0  # between two lines, where nobody looks
_FIGURES = "{n_fmt}/{total_fmt} images, {rate_noinv_fmt}, {remaining} left"
_BAR = "{desc}: {percentage:3.0f}%|{bar}| " + _FIGURES


class GenerationProgress:
    """A bar on a terminal; elsewhere a line now and then, and one in the end.

    Args:
        total: Images that are to be made, at least 1.
        shown: Whether anything is shown. Even a bar that shows nothing takes a lock that a killed sibling
            may hold for ever, so there is none then.
    """

    def __init__(self, total: int, shown: bool) -> None:
        self._shown = shown
        self._total, self._done = total, 0
        self._started = self._said = time.monotonic()
        self._bar = None
        if self._shown and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc="generating", unit=" images", bar_format=_BAR)

    def __enter__(self) -> GenerationProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            self._say()

    def advance(self, number: int) -> None:
        """Count images that were made here."""
        self._done += number
        if self._bar is not None:
            self._bar.update(number)
        elif self._shown and time.monotonic() - self._said >= SECONDS:
            self._say()

    def leave_out(self, number: int) -> None:
        """Expect so many less: they are there, and say nothing of how fast this process is."""
        self._total -= number
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.refresh()

    def _say(self) -> None:
        self._said = time.monotonic()
        line = tqdm.format_meter(
            self._done,
            self._total,
            self._said - self._started,
            prefix="generating",
            unit=" images",
            bar_format="{desc}: " + _FIGURES,
        )
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
