"""What a training shows of itself: averaged weights -> a grid of samples."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.utils import save_image

from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.io.atomic import replace_file

CLASSES = 10  # at most
STEPS = 25
GUIDANCE_SCALES = (1.0, 4.0)


def save_samples(model: LatentDiffusion, path: Path, per_class: int) -> None:
    """Save a grid of samples of the first ten classes, a column each: without guidance, then with it.

    Args:
        model: The model.
        path: Of the grid, a PNG.
        per_class: Rows of each half.
    """
    columns = min(CLASSES, model.num_classes)
    labels = torch.arange(columns).repeat(per_class)
    noise = torch.randn(len(labels), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    schedule = model.schedule
    # Where there is noise alone a walk cannot begin; the step below is as good as that.
    time = max(time for time in schedule.scheduler_times(STEPS) if schedule.level(time).signal > 0)
    grids = []
    for guidance_scale in GUIDANCE_SCALES:
        config = DecodeConfig(
            timestep=time,
            num_inference_steps=STEPS,
            guidance_scale=guidance_scale,
            grid=schedule.grid_kind,
        )
        grids.append(model.decode(model.denoise(noise, labels, config)).cpu())
    image = torch.cat(grids) / 2 + 0.5
    replace_file(path, lambda temporary: save_image(image, temporary, nrow=columns, format="png"))
