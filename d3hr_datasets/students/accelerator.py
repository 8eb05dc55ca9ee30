"""Where a student is trained and tested, if its caller does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.processes import PATIENCE

if TYPE_CHECKING:
    from accelerate import Accelerator


def default_accelerator(mixed_precision: str = "no") -> Accelerator:
    """Return accelerate's choice: CUDA or MPS if there is one, else the CPU.

    MPS was never run by this project: its tests imitate it.

    Args:
        mixed_precision: "no", "bf16" or "fp16".

    Raises:
        MissingExtraError: accelerate is not installed.
    """
    with needs_extra("train", "students are trained with accelerate"):
        from accelerate import Accelerator, InitProcessGroupKwargs
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    return Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[patience])
