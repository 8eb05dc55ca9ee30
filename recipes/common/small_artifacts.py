"""Artifacts of some images of Fashion-MNIST, by the embedded model, decoded as the embedded artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import BuildSettings, ClassOptions, plan_build
from recipes.common.made_artifacts import check_made

TIMESTEP, GUIDANCE = 400, 7.0
FEW_STEPS: dict[str, Any] = {
    "decode_solver": "dpm++2m",
    "decode_num_steps": 4,
    "decode_spacing": "quadratic",
}


def build_of(images: Any, numbers: list[int], model: Path, output: Path, **changes: Any) -> Path:
    """Build an artifact of some of the images, unless it is there.

    Args:
        images: Fashion-MNIST, as torchvision has it.
        numbers: Which.
        model: Folder of the diffusion model.
        output: Folder of the artifact; its name must say what it is of.
        changes: Other settings of the build.

    Raises:
        RecipeError: What is there is of another model, or of other settings.
    """
    settings = BuildSettings(
        timesteps=(TIMESTEP,),
        decode_guidance_scale=GUIDANCE,
        image_size=28,
        name="fashion-mnist",
        **FEW_STEPS,
        **changes,
    )
    options = ClassOptions(class_list="fashion-mnist", same_order=True)
    planned = plan_build(Subset(images, numbers), model, output, settings, class_options=options)
    if (output / METADATA).exists():
        check_made(output, planned)
    else:
        planned.run()
    return output
