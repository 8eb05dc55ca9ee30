"""Which kind of device computes where nobody says (CUDA, Apple's MPS, or the CPU), and in which layout."""

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


def advice_on_memory(can_offload: bool) -> str:
    """Return what helps where the memory of a device is too small, for the end of a message.

    Args:
        can_offload: Whether parts of the model could wait in the host's memory, and do not yet.
    """
    advice = "use a device with more, or torch_dtype=torch.bfloat16"
    if can_offload:
        advice += ", or cpu_offload=True, which has idle parts of the model wait in the memory of the host"
    return advice


def convolution_layout(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Return how weights of convolutions are best laid out: with channels last on CUDA in half precision.

    The kernels of NVIDIA's cuDNN for half precision work so, and otherwise rearrange all they are given.
    Never measured by this project, which had no such GPU. Float32 stays as it is on every device.
    """
    is_half = dtype in (torch.float16, torch.bfloat16)
    return torch.channels_last if device.type == "cuda" and is_half else torch.preserve_format
