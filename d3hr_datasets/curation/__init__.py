"""Curation: an artifact, and a teacher or real images -> the artifact with better groups.

An order of good images:

- `settings`: what decides an order
- `candidates`: many images of a class, and what the teacher says of them
- `ordering`: features -> an order, without any model
- `curate`: all of it, class by class, into a new artifact

Learned means of modes:

- `learning_settings`: what decides them
- `matching`: how far groups are from real images, with gradients
- `learn`: steps, into a new artifact
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
