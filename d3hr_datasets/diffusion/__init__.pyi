from .latent_diffusion import CHUNK as CHUNK
from .latent_diffusion import LatentDiffusion as LatentDiffusion
from .pixel_range import to_pil as to_pil
