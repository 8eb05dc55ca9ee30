"""What inverts images -> sixteen digits that name it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from d3hr_datasets.diffusion.conditioning import Conditioning
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule


def inversion_fingerprint(network: Any, vae: Any, schedule: NoiseSchedule, conditioning: Conditioning) -> str:
    """Return sixteen hexadecimal digits of all that has a part in inversion; the VAE's decoder has none.

    Args:
        network: diffusers' transformer or UNet.
        vae: Its VAE.
        schedule: Its noise schedule.
        conditioning: What it is told of classes.
    """
    digest = hashlib.sha256()
    for part in (network, vae):
        config = {key: value for key, value in part.config.items() if not key.startswith("_")}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, tensor in sorted(part.state_dict().items()):
            if name.startswith(("decoder.", "post_quant_conv.")):
                continue
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(schedule.fingerprint_bytes())
    digest.update(conditioning.fingerprint_bytes())
    return digest.hexdigest()[:16]
