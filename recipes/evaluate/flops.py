"""Count the floating-point operations of a model of the size of DiT-XL/2 and of its VAE.

    python -m recipes.evaluate.flops

The figures of `recipes/IMAGENET.md`. Nothing is computed: the models have shapes only. An addition and a
multiplication are two operations, as in the data sheets of GPUs; the paper of DiT counts them as one.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from recipes.common.program import program
from recipes.evaluate.dit_xl import LATENT_SHAPE, make_transformer, make_vae


@program
def main() -> None:
    with torch.device("meta"):
        transformer, vae = make_transformer(), make_vae()
        latents = torch.zeros(1, *LATENT_SHAPE, dtype=torch.float16)
        images = torch.zeros(1, 3, 256, 256, dtype=torch.float16)
        timestep, label = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as forward:
            transformer(latents, timestep=timestep, class_labels=label)
        with FlopCounterMode(display=False) as encode:
            vae.encode(images)
    print(f"one evaluation of DiT-XL/2 at 256 pixels: {forward.get_total_flops() / 1e9:.1f} GFLOP")
    print(f"encoding one image of 256 pixels: {encode.get_total_flops() / 1e9:.1f} GFLOP")


if __name__ == "__main__":
    main()
