"""Open an artifact of ImageNet's classes, make one image, and print time and memory as JSON.

    python -m recipes.evaluate.generate_once ARTIFACT ROOT TIMESTEP STEPS DTYPE

A process of its own, so that its peak of memory is that of this alone: `recipes.evaluate.dit_xl` starts it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import torch
import torchvision  # noqa: F401 (what takes long to import, and is not measured)


def measure(artifact: str, root: str, timestep: int, steps: int, dtype: str) -> dict[str, Any]:
    """Return seconds and memory of each part, and what the image is."""
    imported = time.perf_counter()
    from d3hr_datasets import D3HRImageNet, DecodeConfig

    dataset = D3HRImageNet(
        root,
        ipc=1,
        artifact=artifact,
        classes=["golden retriever"],
        decode=DecodeConfig(timestep=timestep, num_inference_steps=steps),
        device="cpu",
        torch_dtype=getattr(torch, dtype),
    )
    constructed = time.perf_counter()
    model = dataset.model()
    loaded, loaded_peak = time.perf_counter(), _peak()
    image, label = dataset[0]
    made = time.perf_counter()
    return {
        "construct_seconds": constructed - imported,
        "load_seconds": loaded - constructed,
        "image_seconds": made - loaded,
        "peak_memory_gib_after_loading": loaded_peak,
        "peak_memory_gib": _peak(),
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "image_size": image.size,
        "image_mode": image.mode,
        "label": label,
        "threads": torch.get_num_threads(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    artifact, root, timestep, steps, dtype = sys.argv[1:]
    print(json.dumps(measure(artifact, root, int(timestep), int(steps), dtype)))
