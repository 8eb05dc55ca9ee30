"""Combining: artifacts -> one artifact of all their images, or an artifact without some of its images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
