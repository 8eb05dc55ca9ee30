"""One use of the embedded set, timed in a process of its own by `recipes.evaluate.dataset`.

In: the folder of the cache. Out: seconds and the checksum of all pixels, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time


def use(root: str) -> dict[str, float | str]:
    """Import the library, open the set of ten images per class, and read all images."""
    import torch  # noqa: F401 (not of this library, so it is imported before)
    import torchvision  # noqa: F401

    started = time.perf_counter()
    from d3hr_datasets import D3HRFashionMNIST

    imported = time.perf_counter()
    dataset = D3HRFashionMNIST(root=root, ipc=10)
    constructed = time.perf_counter()
    pixels = b"".join(dataset[index][0].tobytes() for index in range(len(dataset)))
    read = time.perf_counter()
    return {
        "import_seconds": imported - started,
        "construct_seconds": constructed - imported,
        "all_images_seconds": read - imported,
        "sha256_of_pixels": hashlib.sha256(pixels).hexdigest(),
    }


if __name__ == "__main__":
    print(json.dumps(use(sys.argv[1])))
