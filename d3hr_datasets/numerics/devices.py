"""Which kind of device computes where nobody says: CUDA, Apple's MPS, or the CPU."""

from __future__ import annotations

import torch


def best_device_type() -> str:
    """Return "cuda" where PyTorch finds a GPU of it, else "mps" (Apple's GPUs) where it is there, else "cpu".

    MPS was never run by this project, only imitated in tests. MPS has no float64: sums in float64 are made
    on the CPU, whatever the device.
    """
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
