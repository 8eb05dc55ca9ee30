"""Where a student is trained and tested, if its caller does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


def default_accelerator() -> Accelerator:
    """Return accelerate's choice: CUDA if there is one, else the CPU."""
    from accelerate import Accelerator

    return Accelerator()
