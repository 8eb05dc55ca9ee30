"""When something is due that is done every few minutes of a training."""

from __future__ import annotations

import time


class Every:
    """Says when `minutes` have passed since it last said so, or since it was made."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.last = time.monotonic()

    def is_due(self) -> bool:
        """Say whether the time has passed, and begin anew if it has."""
        now = time.monotonic()
        if now - self.last < 60 * self.minutes:
            return False
        self.last = now
        return True
