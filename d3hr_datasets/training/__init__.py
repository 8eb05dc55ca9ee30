"""Training and adapting diffusion models: labelled images -> a model in diffusers' layout, or an adapter.

`settings` says how; `diffusion.train_diffusion` does it. On one GPU, several, or the CPU, by Accelerate.
Needs the extra "adapt".
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
