"""Sums whose order of additions is fixed: values -> the same bits for any number of threads.

`torch.sum` splits its work among threads and vector lanes, and how it does decides the last bit. Where a
last bit decides which modes are joined or which candidate is best, it decides whole images. NumPy adds in one
thread, in an order that the shape alone decides. (All else in sampling is element by element and exactly
rounded.)
"""

from __future__ import annotations

import numpy as np
import torch


def ordered_sum(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the sum along `dim`, which goes. The way there is over the CPU, and without gradients."""
    if values.dtype == torch.bfloat16:  # which NumPy does not have
        return ordered_sum(values.float(), dim).bfloat16()
    total = np.add.reduce(values.detach().cpu().numpy(), axis=dim)
    return torch.as_tensor(total, device=values.device)


def ordered_mean(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the mean along `dim`, which goes."""
    return ordered_sum(values, dim) / values.shape[dim]


def squared_norm(values: torch.Tensor, dims: int) -> torch.Tensor:
    """Return the sum of squares over the last `dims` dimensions, which go."""
    kept = values.shape[: values.dim() - dims]
    return ordered_sum(values.square().reshape(*kept, -1), -1)
