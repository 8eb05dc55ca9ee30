from .latent_diffusion import CHUNK as CHUNK
from .latent_diffusion import LatentDiffusion as LatentDiffusion
from .pixels import to_pil as to_pil
