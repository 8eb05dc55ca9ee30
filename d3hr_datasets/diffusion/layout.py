"""The layout of a model's folder, as diffusers writes it: names of files and of what is in them."""

from __future__ import annotations

INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"  # and ".safetensors" or ".bin"; of several files, a number between
WEIGHTS_INDEX = f"{WEIGHTS}.safetensors.index.json"
# What a model consists of; its folder may hold anything else, which is nobody's business.
PARTS = {
    "transformer": ("config.json", f"{WEIGHTS}*.safetensors", WEIGHTS_INDEX),
    "vae": ("config.json", f"{WEIGHTS}*.safetensors", WEIGHTS_INDEX),
    "scheduler": ("scheduler_config.json",),
}
