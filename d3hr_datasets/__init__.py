"""Distilled image data sets for PyTorch: D3HR class Gaussians over inverted diffusion latents.

The public names stand in `__init__.pyi`. Each is imported on first use: torch takes seconds, and
`d3hr --help` does not need it.

Example:
    >>> from torch.utils.data import DataLoader
    >>> from d3hr_datasets import D3HRFashionMNIST
    >>> loader = DataLoader(D3HRFashionMNIST(ipc=10, transform=ToTensor()), batch_size=50)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
