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
    import diffusers  # noqa: F401 (it is loaded for the first image, and takes longer than anything else)

    loaded = time.perf_counter()
    dataset = D3HRFashionMNIST(root=root, ipc=10)
    constructed = time.perf_counter()
    images = [dataset[0][0]]
    first = time.perf_counter()
    images += [dataset[index][0] for index in range(1, len(dataset))]
    read = time.perf_counter()
    pixels = b"".join(image.tobytes() for image in images)
    return {
        "import_seconds": imported - started,
        "import_diffusers_seconds": loaded - imported,
        "construct_seconds": constructed - loaded,
        "first_image_seconds": first - loaded,
        "all_images_seconds": read - loaded,
        "sha256_of_pixels": hashlib.sha256(pixels).hexdigest(),
    }


if __name__ == "__main__":
    print(json.dumps(use(sys.argv[1])))
