"""Reports: a data set -> one HTML page that says what its artifact is worth, with its pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
