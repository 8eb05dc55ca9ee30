"""Privacy: sums over images -> statistics that say little of any one of them, by a bound.

Settings become a `Privacy` by the accountant, latents are clipped, sums get noise, and noisy sums become
class Gaussians. `membership_advantage` measures what an attack finds out all the same.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
