"""Distilled image data sets for PyTorch: D3HR class Gaussians over inverted diffusion latents.

The public names stand in `__init__.pyi`. Each is imported on first use: torch takes seconds, and
`d3hr --help` does not need it. On Windows the import is refused.

Example:
    >>> from torch.utils.data import DataLoader
    >>> from d3hr_datasets import D3HRFashionMNIST
    >>> loader = DataLoader(D3HRFashionMNIST(ipc=10, transform=ToTensor()), batch_size=50)
"""

import sys

import lazy_loader

if sys.platform == "win32":
    from d3hr_datasets.errors import UnsupportedPlatformError

    raise UnsupportedPlatformError(
        "d3hr-datasets does not run on Windows: its cache locks by flock, opens files without following "
        "links, and syncs folders, which Windows does not have. Use it in WSL (Windows Subsystem for "
        "Linux), where it works as on Linux"
    )

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
