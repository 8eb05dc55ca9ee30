"""Artifacts of some images of Fashion-MNIST, by the embedded model, decoded as the embedded artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import BuildSettings, ClassOptions, plan_build

TIMESTEP, STEPS, GUIDANCE = 400, 25, 3.0


def build_of(images: Any, numbers: list[int], model: Path, output: Path, **changes: Any) -> Path:
    """Build an artifact of some of the images, unless it is there.

    Args:
        images: Fashion-MNIST, as torchvision has it.
        numbers: Which.
        model: Folder of the diffusion model.
        output: Folder of the artifact; its name must say what it is of.
        changes: Other settings of the build.
    """
    if not (output / METADATA).exists():
        settings = BuildSettings(
            timesteps=(TIMESTEP,),
            num_inference_steps=STEPS,
            decode_guidance_scale=GUIDANCE,
            image_size=28,
            name="fashion-mnist",
            **changes,
        )
        options = ClassOptions(class_list="fashion-mnist", same_order=True)
        plan_build(Subset(images, numbers), model, output, settings, class_options=options).run()
    return output
