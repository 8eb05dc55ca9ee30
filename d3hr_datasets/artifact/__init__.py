"""Artifacts: statistics of classes and what belongs to them, as a folder and a repository."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
